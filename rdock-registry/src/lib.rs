//! rdock-registry
