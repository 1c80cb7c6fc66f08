//! Files that nobody wrote.
