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
        ImageFormat::Jpeg => jpeg::check(bytes).map(|_| None),
        ImageFormat::Png => png(bytes),
        ImageFormat::Pnm => pnm(bytes),
        ImageFormat::Bmp => bmp(bytes).map(|()| None),
        ImageFormat::Tiff => Tiff::open(bytes)?.check(),
        ImageFormat::WebP => webp(bytes),
        _ => Ok(None),
    }
}

/// Whether the number of a file's bytes says nothing about the size of its picture: a lossless WebP whose pixels are all alike has no
/// bits for them, a fax page one for each row.
pub(super) fn length_says_nothing(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::WebP => {
            let mut chunks = bytes.get(12..).unwrap_or_default();
            while let (Some(name), Some(len)) = (chunks.get(..4), integer(chunks, 4, 4, false)) {
                if name == b"VP8L" {
                    return true;
                }
                chunks = chunks.get(8 + (len as usize).next_multiple_of(2)..).unwrap_or_default();
            }
            false
        }
        ImageFormat::Tiff => {
            Tiff::open(bytes).is_ok_and(|tiff| tiff.value(259, 1).is_ok_and(|way| (2..=4).contains(&way)))
        }
        _ => false,
    }
}

/// How far apart red, green and blue are at most in a grey picture of a format that does not say whether it is grey; `None` where the
/// format says so.
///
/// That is nothing in pictures with a palette. WebP's chroma is rounded: grey pictures are up to 1 off, where photographs in colour
/// are 40 and more.
pub(super) fn spread_of_grey(format: ImageFormat, bytes: &[u8]) -> Option<u8> {
    let indexed = match format {
        ImageFormat::WebP => return Some(2),
        ImageFormat::Png => bytes.get(25) == Some(&3),
        ImageFormat::Bmp => {
            let at = if integer(bytes, 14, 4, false) == Some(12) { 24 } else { 28 };
            integer(bytes, at, 2, false).is_some_and(|bits| bits <= 8)
        }
        _ => false,
    };
    indexed.then_some(0)
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

/// Parts of a file, read one after the other.
struct Joined<'a> {
    current: &'a [u8],
    rest: std::vec::IntoIter<&'a [u8]>,
}

impl Read for Joined<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.rest.next() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
        self.current.read(out)
    }
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
    let stream = Joined { current: &[], rest: data.into_iter() };
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
                return (rows == height).then_some(());
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

/// An entry of a TIFF file's directory.
struct Entry {
    tag: u64,
    /// Number of the type of its values.
    kind: u64,
    count: u64,
    /// Place of its value or of its values' offset.
    at: usize,
}

/// A TIFF file's first directory. TIFF revision 6.0 (1992), and BigTIFF.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Bytes of an offset: 4, or 8 in BigTIFF.
    word: usize,
    entries: Vec<Entry>,
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
                    let kind = entries.iter().find(|entry| entry.tag == 254);
                    let reduced = kind.and_then(|entry| tiff.number(entry.at, 2)).is_some_and(|kind| kind & 1 == 1);
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
    fn directory(&self, offset: u64) -> Option<(Vec<Entry>, u64)> {
        let offset = usize::try_from(offset).ok()?;
        let (counter, size) = if self.word == 8 { (8, 20) } else { (2, 12) };
        let count = self.number(offset, counter)?.min(1 << 16) as usize;
        let entries = (0..count).map(|index| {
            let at = offset + counter + index * size;
            let (tag, kind, count) = (self.number(at, 2)?, self.number(at + 2, 2)?, self.number(at + 4, self.word)?);
            Some(Entry { tag, kind, count, at: at + 4 + self.word })
        });
        let entries = entries.collect::<Option<Vec<_>>>()?;
        let next = self.number(offset + counter + count * size, self.word)?;
        Some((entries, next))
    }

    /// All values of a tag; none where it is missing.
    fn values(&self, tag: u64) -> Result<Vec<u64>, String> {
        let Some(&Entry { kind, count, at, .. }) = self.entries.iter().find(|entry| entry.tag == tag) else {
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
            let rows = match tiled {
                true => tile_height,
                false => rows_per_strip.min(height - (index as u64 % per_plane) * rows_per_strip),
            };
            let columns = if tiled { tile_width } else { width };
            let expected = columns.saturating_mul(bits).div_ceil(8).saturating_mul(rows);
            let found = match compression {
                1 => len,
                5 => lzw_len(data).ok_or("damaged compressed data")?,
                7 => {
                    self.check_jpeg(data, [rows, columns])?;
                    expected
                }
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

    /// A strip or tile that is a JPEG stream; its tables may stand in the directory.
    fn check_jpeg(&self, data: &[u8], size: [u64; 2]) -> Result<(), String> {
        let tables: Vec<u8> = self.values(347)?.into_iter().map(|byte| byte as u8).collect();
        let tables = tables.strip_suffix(&[0xff, 0xd9]).unwrap_or(&[0xff, 0xd8]);
        let stream = [tables, data.strip_prefix(&[0xff, 0xd8]).unwrap_or(data)].concat();
        match jpeg::check(&stream)? {
            Some(found) if found.map(|extent| extent as u64) != size => {
                let ([rows, columns], [height, width]) = (found, size);
                Err(format!("data of {rows}x{columns} pixels where {height}x{width} are due"))
            }
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

    /// A progressive JPEG file of 40×56 colours with coarse chroma. Written by Pillow.
    const PROGRESSIVE: &str = "\
        ffd8ffe000104a46494600010100000100010000ffdb0043001b12141714111b1716171e1c1b2028422b28252528513a3d3042605565645f\
        555d5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6c799a8aba4ffdb0043011c1e1e2823284e2b2b4ea46e5d6ea4a4a4a4\
        a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4ffc20011080028003803\
        012200021101031101ffc4001800010101010100000000000000000000000003020401ffc400170101010101000000000000000000000000\
        02030104ffda000c03010002100310000001ab9db93ddf055332de9c284b9d7f27b7cc68e7cfaa4f2976139d43ce3d8add3804222dd3ffc4\
        00191000030101010000000000000000000000000111021012ffda0008010100010502cb34c68c947c6e09d20d42f7464c9a18b92921e8b4\
        6b899934332f8d73ffc4001c1100020203010100000000000000000000001201210213311132ffda0008010301013f01e9ea08d66d5a387d\
        0cb46b6b264c6a09b9319a3fffc4001a110101000301010000000000000000000000010211221221ffda0008010201013f015e9397a5ac66\
        99fd48d3262d3fffc40014100100000000000000000000000000000050ffda0008010100063f020fffc40019100003010101000000000000\
        0000000000000111211031ffda0008010100013f21922c8d8482c72d75657d14e905d32c6c36268e2e4c940b83270f22e197c16ae4dc3fff\
        da000c03010002000300000010d2e80027cf8cfe00c3ffc4001811010101010100000000000000000000000100113141ffda000801030101\
        3f10ce2329d602001b22e098b511720685ed909fffc400191101010101010100000000000000000000010011214131ffda0008010201013f\
        1039dbc2352f6d1cbe865e64206ec9cbb645ffc4001a100003010101010000000000000000000000011121311041ffda0008010100013f10\
        4ec2321ae8b74506a683da52a944a59e450e120ec73682b451211260c4264b429587742c9490b696c488e843c08c24f492fb8c73ffd9";

    /// A JPEG file of 40×56 grey pixels with a restart marker after every third block. Written by Pillow.
    const RESTARTS: &str = "\
        ffd8ffe000104a46494600010100000100010000ffdb0043002016181c1814201c1a1c24222026305034302c2c3062464a3a5074667a7872\
        66706e8090b89c8088ae8a6e70a0daa2aebec4ced0ce7c9ae2f2e0c8f0b8cacec6ffc0000b080028003801011100ffc40019000003010101\
        0000000000000000000000030405000102ffc4001b10000105010100000000000000000000000100020304111321ffdd00040003ffda0008\
        010100003f006a09431b8502dbba038a7b6021fabfffd03d59046dc2b96a41237c530c04bf57ffd1254773035253cc58ec08d55dd4fabfff\
        d26dd5c066e29b62531bb02ed690c870afffd36c57059b890b4ee47c419e12f7685fffd41d46f33eaa0e9c166299663323b42fffd50568cc\
        6ed2a989c0666a9f6dbd0f8bffd6660843dba506d3790f120db04bf357ffd73568c48dd2b598c46dd0a69b043f357fffd0f755bd47a8d04c\
        18dc28369dd478bfffd14db5c87ee2a55a411b70ad664123702fffd24cd725fb89faaee43d5fffd9";

    /// A lossy WebP file of 40×56 colours. Written by Pillow.
    const LOSSY_WEBP: &str = "\
        5249464632010000574542505650382026010000d00b009d012a380028003f016cad502b2624a2b5580c016020096c00ac32b8b61c862c3d\
        8c22dd621054f32a71a811ad799779cee56933abdabdbb45a8ed467be6ed7433b7a212cf72af9079d5ea14d4692c8cdc7a61ca3257eb55ae\
        5175e64fe8bf4d12558f0000fe6b73fbced179f8facb256dc626f1e86c3ad21bdeff605b8633f5d8c9489d70306f17e6d11216c34703ba20\
        e1cce382f385604f37b444fd404d2c1533f359aee0138f868039b4bf06dc08b41d4eea649f24d834785a99d6b914c80b60482fbd46c55a9c\
        f602ff6092c4c5fa1868d459f1ddf00e68e4950465ddabf693ade7fcd8315c3aeb1ee6b9462ddd02a040327d7137e606ec967c9ab1794e1c\
        0e0c3045a96d43a9965c0f984970f1a590b4be41a7fa045ceed8d3b04fbc1bfcc000";

    /// A TIFF file of 40×56 grey pixels in three strips, compressed by LZW. Written by Pillow.
    const LZW_TIFF: &str = "\
        49492a00fc010000801010103604160d0340102140086434010a814120d05844421d0d884220b114044e29038b45e211c8f3022b0b8bc3e1\
        51a60492270884c863119894be41328648e591c8ec1e4f2899cae591f9bd027334824f2613091d36754ba853aa54ba55426352a7d5a7f58a\
        1456b54cae522bf61b1426bf5bae59e8b61aa592cb60b7576a371a75aaaf6cbb5d2b367b75daef74bf5f6f361a3dbe4d6d90d36a187b853a\
        45628f5c31f72c8d6e5546c2cc32b4594e426d9ccb9033b5d92e4b27439f682020801020440004160d0340425810b8642613038341e050e8\
        64561d100040e09118cc4e151560439011888c2229168bc0a0b1a8e46a452091492244097ca21f2a8ecca5d3590cc6752693cf6532a8d516\
        7722a44de8d47a4cfa974f9a5369150a054a9554a2d5a8754ad56eb155a957e3d56a5d76475fb358aa769b4576d531b6562e35cb85badb5a\
        b7c5e7953964ae990da74e2736387d06178196d02615bc4e118151404828532bf58f25438e60e4f90cbd2b3339c361f3d99c530202801010\
        103604160d0340102140086434010a814120d05844421d0d884220b114044e29038b45e211c8f3022b218c466252489c2213288648e5d2d9\
        3c2e1d328d472252e97ca2473a8ec9a5d3f94caa2b3ca44f67f3fa4cf2974fa7536874fa654a41549c51ead4aac56eb954a8d5ab155a958e\
        c880808009000001030001000000380000000101030001000000280000000201030001000000080000000301030001000000050000000601\
        0300010000000100000011010400030000007402000016010300010000001000000017010300030000006e0200001c010300010000000100\
        000000000000c100bc00770008000000c900000085010000";

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn grey() -> GrayImage {
        GrayImage::from_fn(40, 56, |x, y| Luma([(x * x + 3 * y * (x + 2)) as u8]))
    }

    fn colour() -> RgbImage {
        RgbImage::from_fn(40, 56, |x, y| Rgb([(x * y) as u8, (3 * x) as u8, (4 * y) as u8]))
    }

    /// Whole files of every format, most with data that hang together so that little can be changed unnoticed.
    fn files() -> Vec<(&'static str, ImageFormat, Vec<u8>)> {
        vec![
            ("grey PNG", ImageFormat::Png, encoded(grey(), ImageFormat::Png)),
            ("colour PNG", ImageFormat::Png, encoded(colour(), ImageFormat::Png)),
            ("grey JPEG", ImageFormat::Jpeg, encoded(grey(), ImageFormat::Jpeg)),
            ("colour JPEG", ImageFormat::Jpeg, encoded(colour(), ImageFormat::Jpeg)),
            ("progressive JPEG", ImageFormat::Jpeg, bytes_of(PROGRESSIVE)),
            ("JPEG with restarts", ImageFormat::Jpeg, bytes_of(RESTARTS)),
            ("PGM", ImageFormat::Pnm, encoded(grey(), ImageFormat::Pnm)),
            ("PPM", ImageFormat::Pnm, encoded(colour(), ImageFormat::Pnm)),
            ("BMP", ImageFormat::Bmp, encoded(colour(), ImageFormat::Bmp)),
            ("TIFF", ImageFormat::Tiff, encoded(colour(), ImageFormat::Tiff)),
            ("TIFF with LZW", ImageFormat::Tiff, bytes_of(LZW_TIFF)),
            ("lossless WebP", ImageFormat::WebP, encoded(colour(), ImageFormat::WebP)),
            ("lossy WebP", ImageFormat::WebP, bytes_of(LOSSY_WEBP)),
        ]
    }

    #[test]
    fn only_what_is_flat_for_nothing_is_exempt() {
        let lossless = encoded(grey(), ImageFormat::WebP);
        assert!(length_says_nothing(ImageFormat::WebP, &lossless));
        // Behind another chunk of an odd length.
        let extended = [&lossless[..12], b"VP8X\x03\0\0\0abc\0", &lossless[12..]].concat();
        assert!(length_says_nothing(ImageFormat::WebP, &extended));
        for (name, format, bytes) in files() {
            let exempt = length_says_nothing(format, &bytes);
            assert_eq!(exempt, format == ImageFormat::WebP && bytes != bytes_of(LOSSY_WEBP), "{name}");
        }
        assert!(!length_says_nothing(ImageFormat::WebP, &bytes_of(LOSSY_WEBP)[..20]));
        assert!(!length_says_nothing(ImageFormat::WebP, b"RIFF"));
    }

    #[test]
    fn whole_files_pass_and_no_part_of_them() {
        for (name, format, bytes) in files() {
            assert_eq!(check(format, &bytes), Ok(None), "{name}");
            for len in 16..bytes.len() {
                let found = check(format, &bytes[..len]);
                assert!(found.is_err(), "{len} of {} bytes of {name}", bytes.len());
            }
        }
    }

    #[test]
    fn bytes_behind_the_end_do_no_harm() {
        for (name, format, bytes) in files() {
            // A line break behind a PNM file; in BMP and PNM files more would belong to the picture.
            let more: &[u8] =
                if matches!(format, ImageFormat::Pnm | ImageFormat::Bmp) { b"\n" } else { b"\xff\xd9 trailing" };
            assert_eq!(check(format, &[&bytes, more].concat()), Ok(None), "{name}");
        }
    }

    /// Where a file's height and width stand, big-endian or not, and how many bytes they have.
    fn size_at(format: ImageFormat, bytes: &[u8]) -> Option<([usize; 2], bool, usize)> {
        match format {
            ImageFormat::Png => Some(([20, 16], true, 4)),
            ImageFormat::Jpeg => {
                let frame = (2..bytes.len()).find(|&at| bytes[at] == 0xff && (0xc0..=0xc2).contains(&bytes[at + 1]))?;
                Some(([frame + 5, frame + 7], true, 2))
            }
            ImageFormat::Bmp => Some(([22, 18], false, 4)),
            ImageFormat::Tiff => {
                let tiff = Tiff::open(bytes).unwrap();
                let place = |tag| tiff.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.at);
                Some(([place(257)?, place(256)?], tiff.big_endian, 2))
            }
            ImageFormat::WebP if &bytes[12..16] == b"VP8 " => Some(([28, 26], false, 2)),
            _ => None,
        }
    }

    #[test]
    fn sizes_that_the_data_do_not_bear_out_are_refused() {
        for (name, format, bytes) in files() {
            let Some((places, big_endian, len)) = size_at(format, &bytes) else { continue };
            for (at, step) in places.into_iter().flat_map(|at| [-32, -16, 16, 64, 2048, 8192].map(|step| (at, step))) {
                let mut changed = bytes.clone();
                let size = integer(&bytes, at, len, big_endian).unwrap() as i64 + step;
                let size = if big_endian {
                    (size as u32).to_be_bytes()[4 - len..].to_vec()
                } else {
                    (size as u32).to_le_bytes()[..len].to_vec()
                };
                changed[at..at + len].copy_from_slice(&size);
                let found = check(format, &changed);
                // Of too little the decoder of WebP speaks by itself.
                let refused = found.is_err() || image::load_from_memory_with_format(&changed, format).is_err();
                assert!(refused, "{name}: {step} at {at}");
            }
        }
    }

    /// As many chunks as there are bytes of data: reading them must not nest.
    #[test]
    fn data_in_many_chunks() {
        let image = GrayImage::from_fn(200, 200, |x, y| Luma([(x * x * 7 + y * y * x * 5 + (x ^ y)) as u8]));
        let whole = encoded(image, ImageFormat::Png);
        let mut bytes = whole[..33].to_vec();
        let mut at = 33;
        while at < whole.len() {
            let len = integer(&whole, at, 4, true).unwrap() as usize;
            if &whole[at + 4..at + 8] == b"IDAT" {
                for byte in &whole[at + 8..][..len] {
                    // Checksums are the decoder's business.
                    bytes.extend([&[0, 0, 0, 1], &b"IDAT"[..], &[*byte, 0, 0, 0, 0]].concat());
                }
            } else {
                bytes.extend(&whole[at..][..12 + len]);
            }
            at += 12 + len;
        }
        assert!(bytes.len() > 10 * whole.len());
        assert_eq!(check(ImageFormat::Png, &bytes), Ok(None));
    }

    /// A camera's preview, a JPEG file within the first segment, has an end marker of its own.
    #[test]
    fn an_embedded_preview_does_not_end_a_file() {
        let (picture, preview) = (bytes_of(RESTARTS), encoded(colour(), ImageFormat::Jpeg));
        let mut bytes = picture[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend(((preview.len() + 8) as u16).to_be_bytes());
        bytes.extend(b"Exif\0\0");
        bytes.extend(&preview);
        let end = bytes.len();
        bytes.extend(&picture[2..]);
        assert_eq!(check(ImageFormat::Jpeg, &bytes), Ok(None));
        for len in end..bytes.len() {
            assert!(check(ImageFormat::Jpeg, &bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn netpbm_headers_and_what_follows() {
        let cases: [(&[u8], Result<Rest, &str>); 12] = [
            (b"P2\n# c 1\n2 2 255\n1 2\n3 4\n", Ok(None)),
            (b"P2 2 2 255 1 2 3", Err("3 values where 2x2 pixels take 4")),
            (b"P2 2 2 255 1 2 3 4 5", Err("1 bytes more")),
            (b"P1 3 2\n010\n1 0 1\n", Ok(None)),
            (b"P1 3 2\n010\n1 0\n", Err("5 values")),
            (b"P4 9 2\n\0\0\0\0", Ok(None)),
            (b"P4 9 2\n\0\0\0", Err("3 bytes of data where 2x9 pixels take 4")),
            (b"P5 2 2 255#c\n\x01\x02\x03\x04", Ok(None)),
            (b"P5 2 2 65535\n\x01\x02\x03\x04", Err("4 bytes of data where 2x2 pixels take 8")),
            (b"P6 1 1 255\n\x01\x02\x03P6 1 1 255\n\x01\x02\x03", Ok(Some("more pictures".into()))),
            (b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 2\nMAXVAL 255\nENDHDR\n\x01\x02\x03\x04", Ok(None)),
            (b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 2\nMAXVAL 255\nENDHDR\n\x01\x02\x03", Err("3 bytes of data")),
        ];
        for (bytes, expected) in cases {
            let found = check(ImageFormat::Pnm, bytes);
            match expected {
                Ok(rest) => assert_eq!(found, Ok(rest), "{}", String::from_utf8_lossy(bytes)),
                Err(part) => assert!(found.as_ref().is_err_and(|found| found.contains(part)), "{found:?}"),
            }
        }
    }

    /// Run lengths of 2×3 pixels from the lowest row up: three equal ones; two and one.
    #[test]
    fn bitmaps_of_run_lengths() {
        let bitmap = |height: i32, data: &[u8]| {
            let mut bytes = vec![0; 54];
            bytes[10] = 54;
            bytes[14] = 40;
            bytes[18] = 3;
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
            bytes[28] = 8;
            bytes[30] = 1;
            bytes.extend(data);
            bytes
        };
        let data = [3, 7, 0, 0, 2, 1, 1, 9, 0, 1];
        assert_eq!(check(ImageFormat::Bmp, &bitmap(2, &data)), Ok(None));
        assert_eq!(check(ImageFormat::Bmp, &bitmap(-2, &data)), Ok(None));
        assert!(check(ImageFormat::Bmp, &bitmap(3, &data)).is_err());
        assert!(check(ImageFormat::Bmp, &bitmap(2, &data[..data.len() - 2])).is_err());
    }

    #[test]
    fn run_lengths_and_codes_are_counted() {
        assert_eq!(pack_bits_len(&[2, 1, 2, 3, 0xfd, 9, 0x80, 0, 5]), 3 + 4 + 1);
        assert_eq!(pack_bits_len(&[5, 1, 2]), 2);
        // 9 bits each: clear, 1, 2, the pair of them, end.
        let codes = [256u32, 1, 2, 258, 257];
        let bits: Vec<bool> = codes.iter().flat_map(|code| (0..9).rev().map(move |bit| code >> bit & 1 == 1)).collect();
        let bytes: Vec<u8> = bits
            .chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0, |byte, (at, &bit)| byte | u8::from(bit) << (7 - at)))
            .collect();
        assert_eq!(lzw_len(&bytes), Some(4));
        assert_eq!(lzw_len(&[0x80, 0x40, 0xff, 0xff]), None);
    }
}
