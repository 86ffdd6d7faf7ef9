//! Parts of a set of codes joined to what one process would have written, bit for bit.

use super::{
    Archive, ArrayHeader, CodesFormat, METADATA_KEY, NpzFile, PART, Place, SafetensorsFile, Stored, npz_values, told,
};
use crate::data::{Part, Shard};
use crate::error::{Error, Result};
use crate::export::arrays::{self, Content, Element, NamedArray, Piece};
use crate::files;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Number of parts.
    pub parts: usize,
    /// Number of signals.
    pub signals: usize,
}

/// Arrays that say something of all signals together, the same in all parts.
const OF_ALL: [&str; 3] = ["signal_shape", "channel_mean", "channel_scale"];

/// A part's arrays, in the order of the file, without the one that says which part it is.
struct Arrays {
    path: PathBuf,
    headers: Vec<ArrayHeader>,
}

/// Joins parts of a set of codes, in whatever order they come, and writes what one process would have written. All are files of the
/// format of `out`. Memory does not grow with the size of the codes.
///
/// # Errors
/// Files that cannot be read or are no parts; a part that is missing or comes twice; parts of different models, signals or settings; a
/// full disk.
pub fn merge(parts: &[PathBuf], out: &Path) -> Result<Merged> {
    let format = CodesFormat::of(out, "out")?;
    let parts = parts.iter().map(|path| open(path, format)).collect::<Result<Vec<_>>>()?;
    let parts = Part::in_order(parts, |arrays| arrays.path.display().to_string())?;
    let merged = Merged { parts: parts.len(), signals: parts[0].0.of_signals };
    let settings = parts[0].0.settings.clone();
    let one_shape = parts[0].1.headers.iter().any(|array| array.name == "signal_shape");
    let mut joined = Joined { out, format, one_shape, spool: None, arrays: Vec::new() };
    for (part, arrays) in parts {
        joined.add(part.shard, &arrays)?;
    }
    let arrays = joined.arrays;
    match format {
        CodesFormat::Safetensors => arrays::write_safetensors(out, Some((METADATA_KEY, settings.to_string())), arrays)?,
        CodesFormat::Npz => arrays::write_npz(out, arrays.into_iter().chain([told(&settings)]).collect())?,
    }
    Ok(merged)
}

/// What a file says of itself and its arrays.
fn open(path: &Path, format: CodesFormat) -> Result<(Part, Arrays)> {
    if CodesFormat::of(path, "part")? != format {
        let ending = match format {
            CodesFormat::Safetensors => ".safetensors",
            CodesFormat::Npz => ".npz",
        };
        let expected = format!("a {ending} file, as --out is: parts and what they make are of one format");
        return Err(Error::parameter("part", path.display(), expected));
    }
    let (settings, headers) = match format {
        CodesFormat::Safetensors => {
            let mut file = SafetensorsFile::open(path)?;
            (file.settings(), headers(&mut file)?)
        }
        CodesFormat::Npz => {
            let mut file = NpzFile::open(path)?;
            (file.settings()?, headers(&mut file)?)
        }
    };
    let no_part = |found: &str| {
        Error::format(
            path,
            format!("expected a part of a set of codes, as `mlcsc encode --shard` writes it, found {found}"),
        )
    };
    let mut settings: Value =
        settings.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| no_part("none of its settings"))?;
    let part = settings.as_object_mut().and_then(|settings| settings.remove(PART));
    let part = part.ok_or_else(|| no_part("a whole one"))?;
    let mut part: Part = serde_json::from_value(part).map_err(|error| no_part(&format!("a broken one: {error}")))?;
    part.settings = settings;
    Ok((part, Arrays { path: path.into(), headers }))
}

fn headers(file: &mut impl Archive) -> Result<Vec<ArrayHeader>> {
    let names = file.names().into_iter().filter(|name| name != METADATA_KEY);
    let header = |name: String| file.header(&name)?.ok_or_else(|| file.broken(format!("no {name}")));
    names.collect::<Vec<_>>().into_iter().map(header).collect()
}

/// The arrays of the parts so far.
struct Joined<'a> {
    out: &'a Path,
    format: CodesFormat,
    /// Whether all signals have arrays in common; else every picture has its own.
    one_shape: bool,
    /// What lay compressed, in a file without a name, with its length.
    spool: Option<(Arc<File>, u64)>,
    arrays: Vec<NamedArray>,
}

impl Joined<'_> {
    fn add(&mut self, shard: Shard, part: &Arrays) -> Result<()> {
        let first = self.arrays.is_empty();
        for (place, header) in part.headers.iter().enumerate() {
            let element = match header.element {
                Some(Stored::F32) => Element::F32,
                Some(Stored::I32) => Element::I32,
                Some(Stored::U8) => Element::U8,
                _ => {
                    let expected = "an array of f32, i32 or u8";
                    return Err(Error::shape(
                        format!("{} of {}", header.name, part.path.display()),
                        expected,
                        &header.typed,
                    ));
                }
            };
            let content = self.content(part, header, element)?;
            let (name, shape) = (header.name.clone(), header.shape.clone());
            if first || !self.one_shape {
                let taken = self.arrays.iter().any(|array| array.name == name);
                if taken {
                    let expected = "arrays that no other part has";
                    return Err(Error::shape(
                        format!("{name} of {}", part.path.display()),
                        expected,
                        "one of the same name",
                    ));
                }
                self.arrays.push(NamedArray { name, element, shape, content });
                continue;
            }
            let what = format!("{name} of {}", part.path.display());
            let Some(own) = self.arrays.get_mut(place).filter(|own| own.name == name && own.element == element) else {
                return Err(Error::shape(what, "the arrays of the other parts", "others"));
            };
            if OF_ALL.contains(&name.as_str()) {
                continue;
            }
            if shape.len() != own.shape.len() || shape[1..] != own.shape[1..] {
                return Err(Error::shape(
                    what,
                    format!("[n, {:?}], as the other parts", &own.shape[1..]),
                    format!("{shape:?}"),
                ));
            }
            own.shape[0] += shape[0];
            own.content.extend(content);
        }
        match self.one_shape && part.headers.len() != self.arrays.len() {
            true => Err(Error::shape(
                format!("arrays of {}, part {shard}", part.path.display()),
                self.arrays.len(),
                part.headers.len(),
            )),
            false => Ok(()),
        }
    }

    /// Where an array's values are, those of an archive once they are taken out of it.
    fn content(&mut self, part: &Arrays, header: &ArrayHeader, element: Element) -> Result<Content> {
        let len = (header.shape.iter().product::<usize>() * element.size()) as u64;
        match self.format {
            CodesFormat::Safetensors => {
                let Place::At(start) = header.place else {
                    return Err(Error::format(&part.path, "no safetensors file"));
                };
                Ok(Content::Pieces(vec![Piece { file: Err(part.path.clone()), start, len }]))
            }
            CodesFormat::Npz => {
                let mut archive = NpzFile::open(&part.path)?.archive;
                let mut entry = npz_values(&mut archive, &header.name, &part.path)?;
                let (spool, end) = match &mut self.spool {
                    Some(spool) => spool,
                    empty => {
                        let folder = files::target(self.out)?;
                        let folder = files::parent(&folder);
                        files::create_folder(folder)?;
                        let spool = tempfile::tempfile_in(folder).map_err(Error::write(self.out))?;
                        empty.insert((Arc::new(spool), 0))
                    }
                };
                let start = *end;
                let mut bytes = vec![0; 1 << 20];
                loop {
                    let read = io::Read::read(&mut entry, &mut bytes).map_err(Error::read(&part.path))?;
                    if read == 0 {
                        break;
                    }
                    (&**spool).write_all(&bytes[..read]).map_err(Error::write(self.out))?;
                    *end += read as u64;
                }
                Ok(Content::Pieces(vec![Piece { file: Ok(spool.clone()), start, len }]))
            }
        }
    }
}
