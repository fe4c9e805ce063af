"""The service as processes: a supervisor (`supervisor`), the API (`worker`) and the learner (`learning`)."""
