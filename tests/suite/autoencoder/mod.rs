//! Encoders and networks that unroll a pursuit.

mod encoders;
mod networks;
