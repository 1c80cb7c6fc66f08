//! Portolan on smol: real sockets, and the public node.
