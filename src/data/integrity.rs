//! Whether a picture's file holds what its header promises, no less and no more.
//!
//! Decoders differ in what they put up with: some fill what is missing with grey, most pass over what is too much, so that a
//! damaged size goes unnoticed. Here each format's data are counted before its decoder's pixels are believed.

use super::jpeg;
use image::{ImageFormat, ImageReader};
use std::io::{Cursor, Read};

/// What a file holds beside the picture that is read: `3 more pages`.
pub(super) type Rest = Option<String>;

/// Checks that the data of a picture are those of a picture of its size.
///
/// # Errors
/// What was found in place of a whole picture.
pub(super) fn check(format: ImageFormat, bytes: &[u8]) -> Result<Rest, String> {
    match format {
        ImageFormat::Jpeg => jpeg::check(bytes).map(|()| None),
        ImageFormat::Png => png(bytes),
        ImageFormat::Pnm => pnm(bytes),
        ImageFormat::Bmp => bmp(bytes).map(|()| None),
        ImageFormat::Tiff => Tiff::open(bytes)?.check(),
        ImageFormat::WebP => webp(bytes),
        _ => Ok(None),
    }
}

/// Whether the format does not say if a picture is grey: WebP, and pictures with a palette.
pub(super) fn leaves_grey_open(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::WebP => true,
        ImageFormat::Png => bytes.get(25) == Some(&3),
        ImageFormat::Bmp => {
            let at = if integer(bytes, 14, 4, false) == Some(12) { 24 } else { 28 };
            integer(bytes, at, 2, false).is_some_and(|bits| bits <= 8)
        }
        _ => false,
    }
}

fn more(count: usize, what: &str) -> Rest {
    (count > 0).then(|| format!("{count} more {what}{}", if count == 1 { "" } else { "s" }))
}

fn cut(place: &str) -> String {
    format!("one that is cut short ({place})")
}

/// Compares bytes of pixels with those that there have to be.
fn compare(found: u64, expected: u64, [height, width]: [u64; 2]) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found} bytes of data where {height}x{width} pixels take {expected}")),
    }
}

/// An integer of the file, if it is that long.
fn integer(bytes: &[u8], at: usize, len: usize, big_endian: bool) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let join = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
    Some(if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
}

/// Bytes that a zlib stream unpacks to, counted up to one more than `most`.
fn inflated(stream: impl Read, most: u64) -> Result<u64, String> {
    let mut unpacked = flate2::read::ZlibDecoder::new(stream).take(most + 1);
    std::io::copy(&mut unpacked, &mut std::io::sink()).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => cut("its compressed data have no end"),
        _ => format!("damaged compressed data ({error})"),
    })
}

/// PNG, third edition (W3C 2025): all IDAT chunks are one zlib stream of filtered rows, in up to seven passes.
fn png(bytes: &[u8]) -> Result<Rest, String> {
    let (mut at, mut header, mut data, mut frames) = (8, None, Vec::new(), 1);
    loop {
        let cut = || cut("no IEND chunk");
        let len = integer(bytes, at, 4, true).ok_or_else(cut)? as usize;
        let name = bytes.get(at + 4..at + 8).ok_or_else(cut)?;
        // Its checksum belongs to a chunk.
        let content = bytes.get(at + 8..).and_then(|rest| rest.get(..len + 4)).ok_or_else(cut)?;
        let content = &content[..len];
        match name {
            b"IHDR" => header = Some(content),
            b"IDAT" => data.push(content),
            b"acTL" => frames = integer(content, 0, 4, true).unwrap_or(1) as usize,
            b"IEND" => break,
            _ => {}
        }
        at += 12 + len;
    }
    let header = header.filter(|header| header.len() == 13).ok_or("no IHDR chunk")?;
    let [width, height] = [0, 4].map(|at| integer(header, at, 4, true).unwrap_or(0));
    let samples = match header[9] {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    let bits = u64::from(header[8]) * samples;
    let pass = |[left, across, top, down]: [u64; 4]| {
        let columns = width.saturating_sub(left).div_ceil(across);
        let rows = height.saturating_sub(top).div_ceil(down);
        if columns == 0 { 0 } else { rows * (1 + (columns * bits).div_ceil(8)) }
    };
    let expected = match header[12] {
        0 => pass([0, 1, 0, 1]),
        _ => {
            let passes =
                [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];
            passes.into_iter().map(pass).sum()
        }
    };
    let stream =
        data.iter().fold(Box::new(std::io::empty()) as Box<dyn Read>, |before, chunk| Box::new(before.chain(*chunk)));
    compare(inflated(stream, expected)?, expected, [height, width])?;
    Ok(more(frames.saturating_sub(1), "frame"))
}

/// Netpbm's formats, P1 to P7. Another picture may follow, white space too.
fn pnm(bytes: &[u8]) -> Result<Rest, String> {
    let kind = bytes.get(1).copied().unwrap_or_default();
    let (numbers, mut at) = match kind {
        b'7' => pam_header(bytes)?,
        _ => pnm_header(bytes, if matches!(kind, b'1' | b'4') { 2 } else { 3 })?,
    };
    let [width, height] = [numbers[0], numbers[1]];
    let size = [height, width];
    let samples = if matches!(kind, b'3' | b'6') { 3 } else { numbers.get(3).copied().unwrap_or(1) };
    let values = width.saturating_mul(height).saturating_mul(samples);
    let wide = u64::from(numbers.get(2).is_some_and(|&most| most > 255)) + 1;
    let found = (bytes.len() - at) as u64;
    match kind {
        b'1'..=b'3' => {
            // Digits need no white space between them in a bitmap.
            let mut count = 0;
            while count < values {
                let rest = &bytes[at..];
                let Some(start) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) else {
                    return Err(format!("{count} values where {height}x{width} pixels take {values}"));
                };
                let len = rest[start..].iter().position(|byte| byte.is_ascii_whitespace());
                let len = if kind == b'1' { 1 } else { len.unwrap_or(rest.len() - start) };
                at += start + len;
                count += 1;
            }
        }
        _ => {
            let expected = match kind {
                b'4' => width.div_ceil(8).saturating_mul(height),
                _ => values.saturating_mul(wide),
            };
            if found < expected {
                compare(found, expected, size)?;
            }
            at += expected as usize;
        }
    }
    let rest = bytes[at..].trim_ascii_start();
    match rest {
        [] => Ok(None),
        [b'P', b'1'..=b'7', ..] => Ok(Some("more pictures".into())),
        _ => Err(format!("{} bytes more than {height}x{width} pixels take", rest.len())),
    }
}

/// The numbers of a header, and where the values begin: after the one white space behind the last number.
fn pnm_header(bytes: &[u8], count: usize) -> Result<(Vec<u64>, usize), String> {
    let (mut numbers, mut at) = (Vec::new(), 2);
    while numbers.len() < count {
        match bytes.get(at).ok_or_else(|| cut("within its header"))? {
            b'#' => at += bytes[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len() - at),
            byte if byte.is_ascii_digit() => {
                let len = bytes[at..].iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len() - at);
                let digits = bytes[at..at + len].iter();
                numbers.push(
                    digits
                        .fold(0u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
                );
                at += len;
                // A comment behind the last number ends with the white space that is due.
                if numbers.len() == count && bytes.get(at) == Some(&b'#') {
                    at += bytes[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(0);
                }
            }
            _ => at += 1,
        }
    }
    Ok((numbers, (at + 1).min(bytes.len())))
}

/// Width, height, largest value and samples of a PAM file.
fn pam_header(bytes: &[u8]) -> Result<(Vec<u64>, usize), String> {
    let (mut numbers, mut at) = (vec![0, 0, 0, 1], 0);
    loop {
        let end = bytes[at..].iter().position(|&byte| byte == b'\n').ok_or_else(|| cut("within its header"))?;
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        at += end + 1;
        let mut words = line.split_ascii_whitespace();
        let place = match words.next() {
            Some("ENDHDR") => return Ok((numbers, at)),
            Some("WIDTH") => 0,
            Some("HEIGHT") => 1,
            Some("MAXVAL") => 2,
            Some("DEPTH") => 3,
            _ => continue,
        };
        numbers[place] = words.next().and_then(|word| word.parse().ok()).ok_or("a header without numbers")?;
    }
}

/// Windows bitmaps: rows of whole words from the offset on, or run lengths (types 1 and 2).
fn bmp(bytes: &[u8]) -> Result<(), String> {
    let number = |at, len| integer(bytes, at, len, false).ok_or_else(|| cut("within its header"));
    let (offset, header) = (number(10, 4)?, number(14, 4)?);
    let (width, height, bits, compression, stated) = match header {
        12 => (number(18, 2)?, number(20, 2)?, number(24, 2)?, 0, 0),
        _ => {
            // Negative heights mean that rows run from the top.
            let height = u64::from((number(22, 4)? as u32 as i32).unsigned_abs());
            (number(18, 4)?, height, number(28, 2)?, number(30, 4)?, number(34, 4)?)
        }
    };
    let found = (bytes.len() as u64).saturating_sub(offset);
    if matches!(compression, 1 | 2) {
        let data = bytes.get(offset as usize..).unwrap_or_default();
        return bmp_runs(data, height, compression == 2)
            .ok_or_else(|| format!("data that do not end with row {height}, the last of its {height}x{width} pixels"));
    }
    let expected = (width.saturating_mul(bits).div_ceil(32) * 4).saturating_mul(height);
    // What the header says of its data is theirs, or that plus a word of filling; profiles and the like may follow.
    let stated = match stated {
        0 if header <= 40 => found,
        0 => expected,
        stated => stated,
    };
    if found < expected || stated < expected || stated > expected + 4 {
        compare(found.min(stated), expected, [height, width])?;
    }
    Ok(())
}

/// Whether run lengths end at the last row.
fn bmp_runs(data: &[u8], height: u64, nibbles: bool) -> Option<()> {
    let (mut at, mut row, mut column) = (0, 0, 0);
    loop {
        let (count, value) = (*data.get(at)?, *data.get(at + 1)?);
        at += 2;
        match (count, value) {
            // End of the row, of the picture; a step across and down.
            (0, 0) => (row, column) = (row + 1, 0),
            (0, 1) => {
                let rows = row + u64::from(column > 0);
                return (rows == height || row + 1 == height).then_some(());
            }
            (0, 2) => {
                column += u64::from(*data.get(at)?);
                row += u64::from(*data.get(at + 1)?);
                at += 2;
            }
            // Values as they are, in whole words.
            (0, count) => {
                let len = if nibbles { usize::from(count).div_ceil(2) } else { count.into() };
                at += len.next_multiple_of(2);
                column += u64::from(count);
            }
            (count, _) => column += u64::from(count),
        }
    }
}

/// WebP (RFC 9649): a RIFF file of chunks, one of which is the picture.
fn webp(bytes: &[u8]) -> Result<Rest, String> {
    let end = integer(bytes, 4, 4, false).ok_or_else(|| cut("within its header"))? as usize + 8;
    let file = bytes.get(..end).ok_or_else(|| cut(&format!("{} of {end} bytes", bytes.len())))?;
    let (mut at, mut frames) = (12, 0usize);
    let mut picture = None;
    while at + 8 <= file.len() {
        let len = integer(file, at + 4, 4, false).unwrap_or(0) as usize;
        let name = &file[at..at + 4];
        let content = file.get(at + 8..).and_then(|rest| rest.get(..len)).ok_or_else(|| cut("within a chunk"))?;
        match name {
            b"VP8 " | b"VP8L" => picture = picture.or(Some((name, content))),
            b"ANMF" => frames += 1,
            _ => {}
        }
        at += 8 + len.next_multiple_of(2);
    }
    let Some((name, content)) = picture else { return Ok(more(frames.saturating_sub(1), "frame")) };
    // No decoder says what it has used. But where the data are those of the picture, their last bytes are missed.
    let Some(shorter) = content.len().checked_sub(LAST_BYTES).filter(|&len| len > LAST_BYTES) else { return Ok(None) };
    let mut without = b"RIFF\0\0\0\0WEBP".to_vec();
    without.extend_from_slice(name);
    without.extend((shorter as u32).to_le_bytes());
    without.extend_from_slice(&content[..shorter]);
    if shorter % 2 == 1 {
        without.push(0);
    }
    let riff = (without.len() - 8) as u32;
    without[4..8].copy_from_slice(&riff.to_le_bytes());
    let reader = ImageReader::with_format(Cursor::new(without), ImageFormat::WebP);
    match reader.decode() {
        Ok(image) => Err(format!("data for more than its {}x{} pixels", image.height(), image.width())),
        Err(_) => Ok(None),
    }
}

/// Bytes of a WebP picture that are left out: more than any encoder fills up with, fewer than a row of blocks takes.
const LAST_BYTES: usize = 6;

/// A TIFF file's first directory. TIFF revision 6.0 (1992), and BigTIFF.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Bytes of an offset: 4, or 8 in BigTIFF.
    word: usize,
    /// Tag, type, count, place of the value or of its offset.
    entries: Vec<(u64, u64, u64, usize)>,
    /// Further directories that hold pictures of full size.
    more_pages: usize,
}

impl<'a> Tiff<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let header = || cut("within its header");
        let big_endian = bytes.starts_with(b"MM");
        let big = integer(bytes, 2, 2, big_endian).ok_or_else(header)? == 43;
        let word = if big { 8 } else { 4 };
        let mut tiff = Self { bytes, big_endian, word, entries: Vec::new(), more_pages: 0 };
        let mut next = tiff.number(if big { 8 } else { 4 }, word).ok_or_else(header)?;
        let mut seen = Vec::new();
        while next != 0 && !seen.contains(&next) {
            // Pages after the first are only counted: a broken chain ends there.
            let (entries, after) = match tiff.directory(next) {
                Some(found) => found,
                None if seen.is_empty() => return Err(cut("no directory")),
                None => break,
            };
            match seen.is_empty() {
                true => tiff.entries = entries,
                false => {
                    let kind = entries.iter().find(|entry| entry.0 == 254);
                    let reduced = kind.and_then(|&(.., at)| tiff.number(at, 2)).is_some_and(|kind| kind & 1 == 1);
                    tiff.more_pages += usize::from(!reduced);
                }
            }
            seen.push(next);
            next = after;
        }
        Ok(tiff)
    }

    fn number(&self, at: usize, len: usize) -> Option<u64> {
        integer(self.bytes, at, len, self.big_endian)
    }

    /// Entries of the directory at an offset, and the offset of the next one.
    #[allow(clippy::type_complexity)]
    fn directory(&self, offset: u64) -> Option<(Vec<(u64, u64, u64, usize)>, u64)> {
        let offset = usize::try_from(offset).ok()?;
        let (counter, size) = if self.word == 8 { (8, 20) } else { (2, 12) };
        let count = self.number(offset, counter)?.min(1 << 16) as usize;
        let entries = (0..count).map(|index| {
            let at = offset + counter + index * size;
            Some((self.number(at, 2)?, self.number(at + 2, 2)?, self.number(at + 4, self.word)?, at + 4 + self.word))
        });
        let entries = entries.collect::<Option<Vec<_>>>()?;
        let next = self.number(offset + counter + count * size, self.word).unwrap_or(0);
        Some((entries, next))
    }

    /// All values of a tag; none where it is missing.
    fn values(&self, tag: u64) -> Result<Vec<u64>, String> {
        let Some(&(_, kind, count, at)) = self.entries.iter().find(|entry| entry.0 == tag) else {
            return Ok(Vec::new());
        };
        let len = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            16..=18 => 8,
            _ => return Ok(Vec::new()),
        };
        let outside = || cut("a list in its directory lies behind its end");
        let size = count.checked_mul(len).filter(|&size| size <= self.bytes.len() as u64).ok_or_else(outside)?;
        let start = match size <= self.word as u64 {
            true => at,
            false => self.number(at, self.word).ok_or_else(outside)? as usize,
        };
        let value = |index| self.number(start.checked_add(index * len as usize)?, len as usize);
        (0..count as usize).map(value).collect::<Option<_>>().ok_or_else(outside)
    }

    fn value(&self, tag: u64, default: u64) -> Result<u64, String> {
        Ok(self.values(tag)?.first().copied().unwrap_or(default))
    }

    /// Strips or tiles: there have to be as many as the size asks for, each with the data of its rows.
    fn check(&self) -> Result<Rest, String> {
        let [width, height] = [self.value(256, 0)?, self.value(257, 0)?];
        let size = [height, width];
        let samples = self.value(277, 1)?;
        let planar = self.value(284, 1)? == 2;
        let bits = self.value(258, 1)?;
        let planes = if planar { samples } else { 1 };
        let bits = bits.saturating_mul(if planar { 1 } else { samples });
        let (tile_width, tile_height) = (self.value(322, 0)?, self.value(323, 0)?);
        let tiled = tile_width > 0 && tile_height > 0;
        let (offsets, lens) = match tiled {
            true => (self.values(324)?, self.values(325)?),
            false => (self.values(273)?, self.values(279)?),
        };
        let rows_per_strip = self.value(278, u64::MAX)?.clamp(1, height.max(1));
        let per_plane = match tiled {
            true => width.div_ceil(tile_width).saturating_mul(height.div_ceil(tile_height)),
            false => height.div_ceil(rows_per_strip),
        };
        let (count, what) = (per_plane.saturating_mul(planes), if tiled { "tiles" } else { "strips" });
        if offsets.len() as u64 != count || lens.len() as u64 != count {
            let found = offsets.len().min(lens.len());
            return Err(format!("{found} {what} of data where {height}x{width} pixels take {count}"));
        }
        let compression = self.value(259, 1)?;
        for (index, (&offset, &len)) in offsets.iter().zip(&lens).enumerate() {
            let data = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
            let data = data.and_then(|rest| rest.get(..usize::try_from(len).ok()?));
            let data = data.ok_or_else(|| cut(&format!("{what} of data lie behind its end")))?;
            let expected = match tiled {
                true => tile_width.saturating_mul(bits).div_ceil(8).saturating_mul(tile_height),
                false => {
                    let strip = index as u64 % per_plane;
                    let rows = rows_per_strip.min(height - strip * rows_per_strip);
                    width.saturating_mul(bits).div_ceil(8).saturating_mul(rows)
                }
            };
            let found = match compression {
                1 => len,
                5 => lzw_len(data).ok_or("damaged compressed data")?,
                8 | 32946 => inflated(data, expected)?,
                32773 => pack_bits_len(data),
                // Left to the decoder.
                _ => expected,
            };
            // Some encoders fill data up to whole words.
            if found < expected || found > expected + u64::from(compression == 1) * 3 {
                compare(found, expected, size)?;
            }
        }
        Ok(more(self.more_pages, "page"))
    }
}

/// Bytes that TIFF's LZW unpacks to: lengths of table entries are all that is kept of them.
fn lzw_len(data: &[u8]) -> Option<u64> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let (mut lens, mut before): (Vec<u64>, Option<u64>) = (vec![1; 258], None);
    let (mut total, mut bit, mut width) = (0, 0, 9);
    while bit + width <= data.len() * 8 {
        let code = (bit..bit + width).fold(0, |code, bit| code << 1 | usize::from(data[bit / 8] >> (7 - bit % 8) & 1));
        bit += width;
        match code {
            CLEAR => {
                lens.truncate(258);
                (width, before) = (9, None);
                continue;
            }
            END => return Some(total),
            _ => {}
        }
        let len = match (lens.get(code), before) {
            (Some(&len), _) => len,
            (None, Some(before)) if code == lens.len() => before + 1,
            _ => return None,
        };
        total += len;
        if let Some(before) = before
            && lens.len() < 4096
        {
            lens.push(before + 1);
        }
        before = Some(len);
        // Codes grow one entry early.
        width = match lens.len() + 1 {
            0..512 => 9,
            512..1024 => 10,
            1024..2048 => 11,
            _ => 12,
        };
    }
    // Some encoders leave the end code out.
    Some(total)
}

/// Bytes that run lengths unpack to.
fn pack_bits_len(data: &[u8]) -> u64 {
    let (mut total, mut at) = (0, 0);
    while at < data.len() {
        match data[at] as i8 {
            -128 => at += 1,
            run @ -127..0 => {
                total += if at + 1 < data.len() { 1 - i64::from(run) } else { 0 };
                at += 2;
            }
            count => {
                let count = i64::from(count) + 1;
                total += count.min((data.len() - at - 1) as i64);
                at += 1 + count as usize;
            }
        }
    }
    total as u64
}
