"""The export plan: settings, tasks, calibration texts."""
