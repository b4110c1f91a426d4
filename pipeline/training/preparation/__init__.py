"""From a request to a run that can start: data looked at, numbers derived, lists of images frozen."""
