//! Nothing of its own: the scenarios are in the test binary.
