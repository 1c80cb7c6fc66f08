//! The flight record from outside: what is written is read back and replays, whatever is done to
//! the file.

mod checkpoint;
mod crash;
mod divergence;
mod document;
mod hostile;
mod pair;
mod redact;
mod relays;
mod round_trip;
mod story;
mod values;
