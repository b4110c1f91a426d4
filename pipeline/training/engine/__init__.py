"""Engine of training: steps, stages, schedule, validation and the worker that runs them."""
