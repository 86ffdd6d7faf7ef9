//! Numbers as files hold them: their type and byte order, and where along every axis they lie.

use burn::tensor::f16;
use memmap2::Mmap;

/// Bytes of a file.
pub(super) enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// What an element's bits mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Unsigned,
    Signed,
    /// IEEE 754: 2, 4 or 8 bytes.
    Float,
    /// The upper half of a single-precision number: 2 bytes.
    Brain,
    /// A byte that stands for 0 to 1.
    Pixel,
}

/// Type and byte order of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    pub kind: Kind,
    /// Bytes per element.
    pub size: usize,
    pub big_endian: bool,
}

impl Element {
    /// Elements whose lower bytes come first.
    pub const fn little(kind: Kind, size: usize) -> Self {
        Self { kind, size, big_endian: false }
    }

    /// Converts elements that lie `step` bytes apart, the first at the start of `bytes`.
    fn convert(self, bytes: &[u8], step: usize, out: &mut [f32]) {
        macro_rules! convert {
            ($type:ty) => {
                match self.big_endian {
                    false => gather(bytes, step, out, |element| <$type>::from_le_bytes(element) as f32),
                    true => gather(bytes, step, out, |element| <$type>::from_be_bytes(element) as f32),
                }
            };
        }
        match (self.kind, self.size) {
            (Kind::Bool, _) => gather(bytes, step, out, |[element]| f32::from(u8::from(element != 0))),
            (Kind::Pixel, _) => gather(bytes, step, out, |[element]| f32::from(element) / 255.0),
            (Kind::Unsigned, 1) => convert!(u8),
            (Kind::Unsigned, 2) => convert!(u16),
            (Kind::Unsigned, 4) => convert!(u32),
            (Kind::Unsigned, _) => convert!(u64),
            (Kind::Signed, 1) => convert!(i8),
            (Kind::Signed, 2) => convert!(i16),
            (Kind::Signed, 4) => convert!(i32),
            (Kind::Signed, _) => convert!(i64),
            (Kind::Brain, _) if self.big_endian => {
                gather(bytes, step, out, |element| brain(u16::from_be_bytes(element)))
            }
            (Kind::Brain, _) => gather(bytes, step, out, |element| brain(u16::from_le_bytes(element))),
            (Kind::Float, 2) if self.big_endian => {
                gather(bytes, step, out, |element| half(u16::from_be_bytes(element)))
            }
            (Kind::Float, 2) => gather(bytes, step, out, |element| half(u16::from_le_bytes(element))),
            (Kind::Float, 4) => convert!(f32),
            (Kind::Float, _) => convert!(f64),
        }
    }
}

impl Element {
    /// Bytes of numbers, and how many of these had to be clipped to the type's range. Integers are rounded, NaN becomes 0 in them. Booleans
    /// are written in single precision.
    fn bytes_of(self, values: &[f32]) -> (Vec<u8>, usize) {
        let mut clipped = 0;
        macro_rules! bytes {
            ($convert:expr) => {
                match self.big_endian {
                    false => values.iter().flat_map(|value| $convert(*value).to_le_bytes()).collect(),
                    true => values.iter().flat_map(|value| $convert(*value).to_be_bytes()).collect(),
                }
            };
        }
        macro_rules! integers {
            ($type:ty) => {{
                let mut whole = |value: f32| {
                    let rounded = f64::from(value).round_ties_even();
                    clipped += usize::from(rounded < <$type>::MIN as f64 || rounded > <$type>::MAX as f64);
                    // Numbers beyond the type's come to its ends.
                    rounded as $type
                };
                bytes!(whole)
            }};
        }
        let bytes = match (self.kind, self.size) {
            (Kind::Unsigned, 1) => integers!(u8),
            (Kind::Unsigned, 2) => integers!(u16),
            (Kind::Unsigned, 4) => integers!(u32),
            (Kind::Unsigned, _) => integers!(u64),
            (Kind::Signed, 1) => integers!(i8),
            (Kind::Signed, 2) => integers!(i16),
            (Kind::Signed, 4) => integers!(i32),
            (Kind::Signed, _) => integers!(i64),
            (Kind::Float, 2) => {
                let mut half = |value: f32| {
                    clipped += usize::from(value.abs() > f16::MAX.to_f32());
                    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
                };
                bytes!(half)
            }
            (Kind::Float, 8) => bytes!(f64::from),
            (Kind::Float, _) | (Kind::Bool | Kind::Pixel | Kind::Brain, _) => bytes!(f32::from),
        };
        (bytes, clipped)
    }

    /// NumPy's name of the type that [`Self::bytes_of`] writes.
    fn numpy(self) -> String {
        let order = match self.big_endian {
            _ if self.size == 1 && matches!(self.kind, Kind::Unsigned | Kind::Signed) => '|',
            false => '<',
            true => '>',
        };
        match self.kind {
            Kind::Unsigned => format!("{order}u{}", self.size),
            Kind::Signed => format!("{order}i{}", self.size),
            Kind::Float => format!("{order}f{}", self.size),
            Kind::Bool | Kind::Pixel | Kind::Brain => format!("{order}f4"),
        }
    }
}

/// The type of the numbers of an array, so that another one can be written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberType(pub(super) Element);

impl NumberType {
    /// Bytes of numbers, and how many of these had to be clipped to the type's range. Integers are rounded, NaN becomes 0 in them. Booleans
    /// are written in single precision.
    pub fn bytes_of(self, values: &[f32]) -> (Vec<u8>, usize) {
        self.0.bytes_of(values)
    }

    /// NumPy's name of the type, as `<f4`.
    pub fn numpy(self) -> String {
        self.0.numpy()
    }
}

/// A half-precision number from its bits. Their library looks each time what the processor can do, which costs more than this.
#[inline]
fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent's bias is 112 less than in single precision; numbers below the normal ones come right as well, for they are exact.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let value = if bits & 0x7fff < 0x7c00 { finite.to_bits() } else { magnitude | 0xff << 23 };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// A number from the upper half of its bits in single precision.
#[inline]
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline]
fn gather<const SIZE: usize>(bytes: &[u8], step: usize, out: &mut [f32], convert: impl Fn([u8; SIZE]) -> f32) {
    if step == SIZE {
        // Side by side: a loop that takes several at once.
        let (elements, _) = bytes[..out.len() * SIZE].as_chunks::<SIZE>();
        out.iter_mut().zip(elements).for_each(|(out, &element)| *out = convert(element));
        return;
    }
    for (at, out) in out.iter_mut().enumerate() {
        let mut element = [0; SIZE];
        element.copy_from_slice(&bytes[at * step..][..SIZE]);
        *out = convert(element);
    }
}

/// An array within a file: where its elements lie.
#[derive(Debug, Clone)]
pub(super) struct Strided {
    /// Where the first element begins.
    pub offset: usize,
    pub element: Element,
    pub extents: Vec<usize>,
    /// Bytes from one element to the next along each axis.
    pub steps: Vec<usize>,
}

impl Strided {
    /// Elements without gaps: the last index runs fastest, or the first one in Fortran order. Their number fits into memory's addresses.
    pub fn dense(offset: usize, element: Element, extents: Vec<usize>, fortran_order: bool) -> Self {
        let mut steps = vec![0; extents.len()];
        let mut step = element.size;
        for at in 0..extents.len() {
            let axis = if fortran_order { at } else { extents.len() - 1 - at };
            steps[axis] = step;
            step *= extents[axis];
        }
        Self { offset, element, extents, steps }
    }

    /// Copies the block of `extents` that begins at `start` into `out`, in C order. `bytes` are those of the whole file.
    pub fn read_block(&self, bytes: &[u8], start: &[usize], extents: &[usize], out: &mut [f32]) {
        let base = start.iter().zip(&self.steps).map(|(index, step)| index * step).sum::<usize>() + self.offset;
        self.read_axis(bytes, base, 0, extents, out);
    }

    fn read_axis(&self, bytes: &[u8], base: usize, axis: usize, extents: &[usize], out: &mut [f32]) {
        if extents.len() - axis <= 1 {
            let step = self.steps.last().copied().unwrap_or(self.element.size);
            return self.element.convert(&bytes[base..], step, out);
        }
        let part = out.len() / extents[axis];
        for (index, out) in out.chunks_exact_mut(part).enumerate() {
            self.read_axis(bytes, base + index * self.steps[axis], axis + 1, extents, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::bf16;

    /// Every number of sixteen bits, by another implementation.
    /// What a type cannot hold is clipped and counted, at both ends; halves go to the even number.
    #[test]
    fn numbers_in_other_types() {
        let stored = |kind, size, big_endian| NumberType(Element { kind, size, big_endian });
        let values = [-200.0, -0.5, 0.5, 1.5, 127.6, 255.4, 255.6, f32::NAN];
        let (bytes, clipped) = stored(Kind::Unsigned, 1, false).bytes_of(&values);
        assert_eq!((bytes, clipped), (vec![0, 0, 0, 2, 128, 255, 255, 0], 2));
        let (bytes, clipped) = stored(Kind::Signed, 1, false).bytes_of(&values);
        assert_eq!((bytes, clipped), ([-128, 0, 0, 2, 127, 127, 127, 0].map(|value: i8| value as u8).to_vec(), 4));
        let (bytes, clipped) = stored(Kind::Signed, 2, true).bytes_of(&[258.0, -7.0]);
        assert_eq!((bytes, clipped), (vec![1, 2, 0xff, 0xf9], 0));
        let (bytes, clipped) = stored(Kind::Float, 2, false).bytes_of(&[1e6, -1e6, 1.0]);
        let expected = [f16::MAX, f16::MIN, f16::ONE].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!((bytes, clipped), (expected, 2));
        for (kind, size, big_endian, name) in [
            (Kind::Bool, 1, false, "<f4"),
            (Kind::Unsigned, 1, true, "|u1"),
            (Kind::Signed, 8, true, ">i8"),
            (Kind::Float, 8, false, "<f8"),
        ] {
            let stored = stored(kind, size, big_endian);
            assert_eq!(stored.numpy(), name);
            let len = name[2..].parse::<usize>().unwrap();
            assert_eq!(stored.bytes_of(&[0.25, 1.0]).0.len(), 2 * len, "{name}");
        }
    }

    #[test]
    fn numbers_of_sixteen_bits() {
        let same =
            |found: f32, expected: f32| found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        for bits in 0..=u16::MAX {
            assert!(same(half(bits), f16::from_bits(bits).to_f32()), "{bits:#x}: {}", half(bits));
            assert!(same(brain(bits), bf16::from_bits(bits).to_f32()), "{bits:#x}: {}", brain(bits));
        }
    }
}
