//! What leaves the program besides models: pictures of filters, arrays for other programs, codes.

pub mod arrays;
pub mod codes;
pub mod model;
pub mod mosaic;
#[cfg(feature = "report")]
pub mod report;
pub mod saelens;

pub use codes::{CodesReader, CodesWriter};
pub use model::export_model;
