//! The reader against tars of other writers and against damage.
