//! Chunks of PNG files.

/// Where the first chunk after the header of a PNG file begins.
pub(crate) const AFTER_HEADER: usize = 33;

/// A chunk of a PNG file: length, type, content, checksum.
pub(crate) fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut checksum = flate2::Crc::new();
    checksum.update(kind);
    checksum.update(content);
    [&(content.len() as u32).to_be_bytes()[..], kind, content, &checksum.sum().to_be_bytes()].concat()
}
