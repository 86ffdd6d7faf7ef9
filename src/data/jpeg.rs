//! Whether a JPEG file's scans hold what its header promises.
//!
//! Decoders fill what is missing with grey and pass over what is too much. Here the markers of the main image are followed one
//! by one (an embedded preview lies inside a segment and is passed over) and the entropy-coded data of every scan are read,
//! block by block, without computing a pixel: they have to last for exactly the blocks of a picture of that size. ITU-T T.81
//! (1992), annexes B, F and G.

/// Follows the file from its start marker to the end marker of the main image; what comes after it is not looked at.
///
/// Returns its rows and columns, or `None` where the frame is coded neither sequentially nor progressively by Huffman codes: that is
/// left to the decoder.
///
/// # Errors
/// What was found in place of a whole picture.
pub(super) fn check(bytes: &[u8]) -> Result<Option<[usize; 2]>, String> {
    let mut file = File { bytes, at: 2, tables: Tables::default(), restart: 0, frame: None };
    while let Some(marker) = file.next_marker() {
        // The end; restart markers, a second start and TEM stand alone.
        if marker == 0xd9 {
            return file.finish().map(Some);
        }
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let segment = file.segment(marker)?;
        match marker {
            0xc0..=0xc2 if file.frame.is_some() => return Err("a second frame header".into()),
            0xc0..=0xc2 => file.frame = Some(Frame::parse(segment, marker == 0xc2)?),
            0xc4 => file.tables.define(segment)?,
            0xdd => file.restart = word(segment, 0)?,
            0xda => file.scan(segment)?,
            // Lossless, hierarchical, arithmetic coding.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Ok(None),
            _ => {}
        }
    }
    Err("one that is cut short (no end marker)".into())
}

/// Components of the picture, if there is a frame header: four are inks.
pub(super) fn components(bytes: &[u8]) -> Option<usize> {
    let mut file = File { bytes, at: 2, tables: Tables::default(), restart: 0, frame: None };
    while let Some(marker) = file.next_marker() {
        match marker {
            0x01 | 0xd0..=0xd8 => {}
            0xd9 | 0xda => return None,
            _ => {
                let segment = file.segment(marker).ok()?;
                if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
                    return byte(segment, 5).ok();
                }
            }
        }
    }
    None
}

/// Bytes that may be left over at the end of a scan of a picture of at least [`SLACK_FROM`] units in both directions: some
/// cameras leave a few. A row or a column of units takes more.
const SLACK: usize = 2;
const SLACK_FROM: usize = 8;

fn byte(bytes: &[u8], at: usize) -> Result<usize, String> {
    bytes.get(at).map(|&byte| byte.into()).ok_or_else(|| "a segment that is too short".into())
}

fn word(bytes: &[u8], at: usize) -> Result<usize, String> {
    Ok(byte(bytes, at)? << 8 | byte(bytes, at + 1)?)
}

struct File<'a> {
    bytes: &'a [u8],
    at: usize,
    tables: Tables,
    /// Units between two restart markers; 0 for none.
    restart: usize,
    frame: Option<Frame>,
}

impl<'a> File<'a> {
    /// Goes past the next marker; `None` at the end of the file.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            self.at += self.bytes[self.at..].iter().position(|&byte| byte == 0xff)?;
            self.at += self.bytes[self.at..].iter().position(|&byte| byte != 0xff)?;
            let marker = self.bytes[self.at];
            self.at += 1;
            if marker != 0 {
                return Some(marker);
            }
        }
    }

    /// The content of the segment that begins here.
    fn segment(&mut self, marker: u8) -> Result<&'a [u8], String> {
        let bytes = self.bytes;
        let cut = || format!("one that is cut short (within segment {marker:02x})");
        let len = word(bytes, self.at).map_err(|_| cut())?;
        if len < 2 {
            return Err(format!("a segment {marker:02x} of {len} bytes"));
        }
        let segment = bytes.get(self.at + 2..self.at + len).ok_or_else(cut)?;
        self.at += len;
        Ok(segment)
    }

    /// Reads the entropy-coded data of one scan.
    fn scan(&mut self, header: &[u8]) -> Result<(), String> {
        let frame = self.frame.as_mut().ok_or("a scan before the frame header")?;
        let scan = Scan::parse(header, frame)?;
        let [down, across] = scan.units(frame);
        let [height, width] = frame.size;
        let total = down * across;
        let mut reader = Reader { bytes: self.bytes, at: self.at, buffer: 0, available: 0 };
        let mut state = State::default();
        for unit in 0..total {
            if self.restart > 0 && unit > 0 && unit.is_multiple_of(self.restart) {
                if state.run > 0 || !reader.restart(unit / self.restart - 1) {
                    return Err(format!("no restart marker where one is due, after {unit} of {total} blocks"));
                }
                state = State::default();
            }
            let place = [unit / across, unit % across];
            if scan.read_unit(&mut frame.components, &self.tables, &mut reader, place, &mut state).is_none() {
                let found = if reader.is_at_end() { "data that end" } else { "damaged data" };
                let rows = height * (unit / across) / down;
                return Err(format!("{found} after {rows} rows of its {height}x{width} pixels"));
            }
        }
        let slack = if down.min(across) >= SLACK_FROM { SLACK } else { 0 };
        let mut left = reader.finish();
        // A restart marker at the very end does no harm; data behind it are too much.
        while left <= slack && matches!(self.bytes.get(reader.at..), Some([0xff, 0xd0..=0xd7, ..])) {
            reader.at += 2;
            left += reader.finish();
        }
        if state.run > 0 || left > slack {
            return Err(format!("data for more than its {height}x{width} pixels"));
        }
        self.at = reader.at;
        Ok(())
    }

    fn finish(&self) -> Result<[usize; 2], String> {
        let frame = self.frame.as_ref().ok_or("no frame header")?;
        match frame.components.iter().position(|component| !component.coded) {
            None => Ok(frame.size),
            Some(missing) => Err(format!("no scan of component {}", missing + 1)),
        }
    }
}

/// Codes with their values, by class (0: DC, 1: AC) and number.
#[derive(Default)]
struct Tables([[Option<Code>; 4]; 2]);

impl Tables {
    fn define(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while !segment.is_empty() {
            let name = byte(segment, 0)?;
            let counts: &[u8] = segment.get(1..17).ok_or("a Huffman table that is too short")?;
            let len = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let values = segment.get(17..17 + len).ok_or("a Huffman table that is too short")?;
            let table = self.0.get_mut(name >> 4).and_then(|tables| tables.get_mut(name & 15));
            *table.ok_or_else(|| format!("a Huffman table {name:02x}"))? = Some(Code::new(counts, values)?);
            segment = &segment[17 + len..];
        }
        Ok(())
    }

    fn get(&self, class: usize, number: usize) -> Option<&Code> {
        self.0[class].get(number)?.as_ref()
    }
}

/// Bits that are looked up at once.
const LOOK: u32 = 9;

/// A Huffman code: canonical, of at most 16 bits.
struct Code {
    /// Length and value of the code word that the next [`LOOK`] bits begin with; length 0 for longer ones.
    look: Vec<(u8, u8)>,
    /// By length: one more than the last code word (shifted left to 16 bits), and what to add to a word to get its place in
    /// `values`.
    ends: [u32; 17],
    offsets: [i32; 17],
    values: Vec<u8>,
}

impl Code {
    fn new(counts: &[u8], values: &[u8]) -> Result<Self, String> {
        let mut code = Self { look: vec![(0, 0); 1 << LOOK], ends: [0; 17], offsets: [0; 17], values: values.into() };
        let (mut word, mut place) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(counts) {
            code.offsets[length as usize] = place as i32 - word as i32;
            for _ in 0..count {
                if length <= LOOK && word < 1 << length {
                    let first = (word << (LOOK - length)) as usize;
                    code.look[first..first + (1 << (LOOK - length))].fill((length as u8, values[place]));
                }
                (word, place) = (word + 1, place + 1);
            }
            if word > 1 << length {
                return Err("a Huffman table with more words than there can be".into());
            }
            code.ends[length as usize] = word << (16 - length);
            word <<= 1;
        }
        Ok(code)
    }
}

/// Bits of one scan.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    available: u32,
}

impl Reader<'_> {
    /// Takes bytes in until 32 bits are there or a marker is met.
    fn fill(&mut self) {
        while self.available <= 32 {
            // Zero after 0xff says that this is no marker.
            let (byte, step) = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xff, 0, ..] => (0xff, 2),
                [0xff, ..] | [] => return,
                [byte, ..] => (*byte, 1),
            };
            self.at += step;
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.available += 8;
        }
    }

    /// `None` where fewer bits are left.
    fn bits(&mut self, count: u32) -> Option<u32> {
        if self.available < count {
            self.fill();
        }
        self.available = self.available.checked_sub(count)?;
        Some((self.buffer >> self.available) as u32 & ((1 << count) - 1))
    }

    fn decode(&mut self, code: &Code) -> Option<u8> {
        if self.available < 16 {
            self.fill();
        }
        // Zeros stand in for bits that are not there; a word that needs them is none.
        let next = match self.available {
            0..16 => (self.buffer << (16 - self.available)) as u32 & 0xffff,
            _ => (self.buffer >> (self.available - 16)) as u32 & 0xffff,
        };
        let (length, value) = code.look[(next >> (16 - LOOK)) as usize];
        if length > 0 {
            self.available = self.available.checked_sub(length.into())?;
            return Some(value);
        }
        let length = (LOOK as usize + 1..=16).find(|&length| next < code.ends[length])?;
        let place = (next >> (16 - length)) as i32 + code.offsets[length];
        self.available = self.available.checked_sub(length as u32)?;
        code.values.get(usize::try_from(place).ok()?).copied()
    }

    /// Whether nothing but the filling of a last byte is left before a marker or the end of the file.
    fn is_at_end(&mut self) -> bool {
        self.fill();
        self.available < 32 && self.bytes.get(self.at).is_none_or(|&byte| byte == 0xff)
    }

    /// Goes past the restart marker that has to stand here.
    fn restart(&mut self, number: usize) -> bool {
        if self.finish() > SLACK {
            return false;
        }
        while self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xff]) {
            self.at += 1;
        }
        let found = self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xd0 + (number % 8) as u8]);
        self.at += 2;
        found
    }

    /// Goes to the next marker; how many bytes were not used.
    fn finish(&mut self) -> usize {
        let mut left = 0;
        loop {
            left += self.available as usize / 8;
            (self.available, self.buffer) = (0, 0);
            self.fill();
            if self.available == 0 {
                return left;
            }
        }
    }
}

struct Component {
    id: usize,
    /// Blocks of a unit, down and across, where components are interleaved.
    sampling: [usize; 2],
    /// Blocks that hold pixels, down and across.
    blocks: [usize; 2],
    /// Blocks in a row of whole units.
    stride: usize,
    /// For every block the coefficients that are not zero so far, one bit each; only in progressive files.
    nonzero: Vec<u64>,
    /// Whether a scan had its DC coefficients.
    coded: bool,
}

struct Frame {
    progressive: bool,
    /// Rows and columns of pixels.
    size: [usize; 2],
    /// Units of an interleaved scan, down and across.
    units: [usize; 2],
    components: Vec<Component>,
}

impl Frame {
    fn parse(segment: &[u8], progressive: bool) -> Result<Self, String> {
        let size = [word(segment, 1)?, word(segment, 3)?];
        let count = byte(segment, 5)?;
        if size.contains(&0) || count == 0 {
            return Err(format!("{}x{} pixels of {count} components", size[0], size[1]));
        }
        let mut components = Vec::new();
        for index in 0..count {
            let sampling = byte(segment, 7 + 3 * index)?;
            let sampling = [sampling & 15, sampling >> 4];
            if sampling.iter().any(|factor| !(1..=4).contains(factor)) {
                return Err(format!("sampling factors {}x{}", sampling[1], sampling[0]));
            }
            let id = byte(segment, 6 + 3 * index)?;
            let empty = Component { id, sampling, blocks: [0; 2], stride: 0, nonzero: Vec::new(), coded: false };
            components.push(empty);
        }
        let most: [usize; 2] =
            [0, 1].map(|axis| components.iter().map(|component| component.sampling[axis]).max().unwrap_or(1));
        let units = [0, 1].map(|axis| size[axis].div_ceil(8 * most[axis]));
        for component in &mut components {
            component.blocks =
                [0, 1].map(|axis| (size[axis] * component.sampling[axis]).div_ceil(most[axis]).div_ceil(8));
            component.stride = units[1] * component.sampling[1];
        }
        Ok(Self { progressive, size, units, components })
    }
}

/// What is carried from block to block.
#[derive(Default)]
struct State {
    /// Blocks, after this one, whose band has ended.
    run: u32,
}

/// Kinds of scans.
#[derive(Clone, Copy)]
enum Pass {
    Sequential,
    FirstDc,
    RefineDc,
    FirstAc,
    RefineAc,
}

struct Scan {
    /// Component with its tables for DC and AC.
    components: Vec<(usize, [usize; 2])>,
    /// First and last coefficient.
    band: [u32; 2],
    pass: Pass,
}

impl Scan {
    fn parse(header: &[u8], frame: &mut Frame) -> Result<Self, String> {
        let count = byte(header, 0)?;
        let mut components = Vec::new();
        for index in 0..count {
            let id = byte(header, 1 + 2 * index)?;
            let component = frame.components.iter().position(|component| component.id == id);
            let component = component.ok_or_else(|| format!("a scan of a component {id} that is not there"))?;
            let tables = byte(header, 2 + 2 * index)?;
            components.push((component, [tables >> 4, tables & 15]));
        }
        let [first, last, bits] =
            [byte(header, 1 + 2 * count)?, byte(header, 2 + 2 * count)?, byte(header, 3 + 2 * count)?];
        let pass = match (frame.progressive, first, bits >> 4) {
            (false, ..) => Pass::Sequential,
            (true, 0, 0) => Pass::FirstDc,
            (true, 0, _) => Pass::RefineDc,
            (true, _, 0) => Pass::FirstAc,
            (true, ..) => Pass::RefineAc,
        };
        let sound = match pass {
            Pass::FirstAc | Pass::RefineAc => count == 1 && first <= last && last < 64,
            _ => (1..=4).contains(&count),
        };
        if !sound {
            return Err(format!("a scan of {count} components and coefficients {first} to {last}"));
        }
        for &(index, _) in &components {
            let component = &mut frame.components[index];
            component.coded |= !matches!(pass, Pass::FirstAc | Pass::RefineAc);
            if frame.progressive && component.nonzero.is_empty() {
                component.nonzero = vec![0; component.stride * frame.units[0] * component.sampling[0]];
            }
        }
        Ok(Self { components, band: [first as u32, last as u32], pass })
    }

    /// Units down and across: blocks where there is one component.
    fn units(&self, frame: &Frame) -> [usize; 2] {
        match self.components.as_slice() {
            [(only, _)] => frame.components[*only].blocks,
            _ => frame.units,
        }
    }

    /// Reads all blocks of one unit; `None` where the data end or make no sense.
    fn read_unit(
        &self,
        components: &mut [Component],
        tables: &Tables,
        reader: &mut Reader,
        place: [usize; 2],
        state: &mut State,
    ) -> Option<()> {
        let interleaved = self.components.len() > 1;
        for &(index, [dc, ac]) in &self.components {
            let component = &mut components[index];
            let extents = if interleaved { component.sampling } else { [1, 1] };
            for block in 0..extents[0] * extents[1] {
                match self.pass {
                    Pass::Sequential => {
                        let (dc, ac) = (tables.get(0, dc)?, tables.get(1, ac)?);
                        read_dc(reader, dc)?;
                        read_ac(reader, ac)?;
                    }
                    Pass::FirstDc => read_dc(reader, tables.get(0, dc)?)?,
                    Pass::RefineDc => drop(reader.bits(1)?),
                    Pass::FirstAc | Pass::RefineAc => {
                        let row = place[0] * extents[0] + block / extents[1];
                        let column = place[1] * extents[1] + block % extents[1];
                        let nonzero = &mut component.nonzero[row * component.stride + column];
                        let table = tables.get(1, ac)?;
                        match self.pass {
                            Pass::FirstAc => first_ac(reader, table, self.band, nonzero, state)?,
                            _ => refine_ac(reader, table, self.band, nonzero, state)?,
                        }
                    }
                }
            }
        }
        Some(())
    }
}

fn read_dc(reader: &mut Reader, table: &Code) -> Option<()> {
    let size = reader.decode(table)?;
    (size <= 16).then(|| reader.bits(size.into())).flatten().map(drop)
}

fn read_ac(reader: &mut Reader, table: &Code) -> Option<()> {
    let mut at = 1;
    while at < 64 {
        let symbol = reader.decode(table)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (_, 0) => return Some(()),
            (zeros, size) => {
                at += u32::from(zeros) + 1;
                reader.bits(size.into())?;
            }
        }
    }
    (at == 64).then_some(())
}

/// Reads how many blocks, this one included, end here.
fn read_run(reader: &mut Reader, size: u8) -> Option<u32> {
    Some((1 << size) + reader.bits(size.into())?)
}

fn first_ac(reader: &mut Reader, table: &Code, band: [u32; 2], nonzero: &mut u64, state: &mut State) -> Option<()> {
    if state.run > 0 {
        state.run -= 1;
        return Some(());
    }
    let mut at = band[0];
    while at <= band[1] {
        let symbol = reader.decode(table)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (run, 0) => {
                state.run = read_run(reader, run)? - 1;
                return Some(());
            }
            (zeros, size) => {
                at += u32::from(zeros);
                reader.bits(size.into())?;
                *nonzero |= 1u64.checked_shl(at)?;
                at += 1;
            }
        }
    }
    (at == band[1] + 1).then_some(())
}

fn refine_ac(reader: &mut Reader, table: &Code, band: [u32; 2], nonzero: &mut u64, state: &mut State) -> Option<()> {
    let mut at = band[0];
    while at <= band[1] && state.run == 0 {
        let symbol = reader.decode(table)?;
        let (mut zeros, size) = (symbol >> 4, symbol & 15);
        if size == 0 && zeros < 15 {
            state.run = read_run(reader, zeros)?;
            break;
        }
        if size > 0 {
            // The sign of a new coefficient, which is ±1.
            reader.bits(1)?;
        }
        while at <= band[1] {
            if *nonzero >> at & 1 == 1 {
                reader.bits(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        if size > 0 {
            if at > band[1] {
                return None;
            }
            *nonzero |= 1 << at;
        }
        at += 1;
    }
    if state.run > 0 {
        for at in at..=band[1] {
            if *nonzero >> at & 1 == 1 {
                reader.bits(1)?;
            }
        }
        state.run -= 1;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::components;

    #[test]
    fn components_are_counted() {
        // A start, a comment, and a frame header with four components.
        let inks = [0xff, 0xd8, 0xff, 0xfe, 0, 4, 1, 2, 0xff, 0xc0, 0, 8, 8, 0, 1, 0, 1, 4];
        assert_eq!(components(&inks), Some(4));
        assert_eq!(components(&inks[..8]), None);
    }
}
