//! Learning the dictionaries: the paper's online update and the default one, in one loop with one checkpoint format.

pub mod gradient;
