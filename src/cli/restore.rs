//! `mlcsc restore`: pictures without their noise, with what is missing in them, sharp and large.

use super::inputs::Inputs;
use super::output::{self, Summary, counted, number};
use super::progress::{PER_PICTURE, Progress};
use super::{DeviceArgs, flags, interrupt, model_path};
use crate::autoencoder::{Autoencoder, SparseAutoencoder, has_encoder};
use crate::data::layout::{Layout, looks_channels_last, transposed};
use crate::data::npy::{self, NumberType};
use crate::data::{Still, pictures_and_arrays};
use crate::error::{Error, Result};
use crate::evaluate::pictures::{psnr, ssim};
use crate::export::arrays;
use crate::files;
use crate::kernels::sparse::energy;
use crate::model::Mlcsc;
use crate::model::file::CodingDefaults;
use crate::pursuit::Convergence;
use crate::restore::{
    Blur, Denoised, Method, Observation, PatchDictionary, Picture, RestoreConfig, by_network, by_pursuit, noise,
    restore, salt_and_pepper,
};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Take noise and blur off pictures, fill in what is missing in them, make them larger
///
/// Overlapping patches are coded by the atoms of a dictionary until what is left is as large as the noise, first alone and then together
/// with patches that look alike; groups of those then say what is likely of each of them. Missing pixels are never read. Pictures and
/// arrays are written in the type and depth that they came in, transparency kept. Noise is taken off strip by strip, in some 20 bytes for each of a
/// picture's
/// values and 200 MB; otherwise memory is some 40 bytes a value, and of --method pursuit some 8 for each atom at each place.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A picture (PNG, JPEG, PNM, TIFF, BMP, WebP), an array .npy ([height, width], [channels, height, width] or [height, width,
    /// channels]), or a folder of those. Arrays are computed in single precision and written in their own type: whole numbers rounded and
    /// clipped, booleans in single precision
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Which axis of the arrays --data, --mask and --reference are the channels: the first (maps) or the last (channels-last). Default: the last where it is 1, 3 or 4 and the
    /// others are more than 4, else the first
    #[arg(long, value_name = "NAME", value_parser = layouts())]
    layout: Option<Layout>,
    /// File to write, of a type by its name, or a folder, which has to be there unless --data is one, for files of the same names (.pgm for .pbm)
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Model whose deepest effective atoms code the patches, or the folder of a run. Default: 512 atoms of grey photographs that come
    /// with the program
    #[arg(long, value_name = "M.safetensors", value_parser = model_path())]
    model: Option<PathBuf>,
    /// How noise is taken off: by groups of patches that are alike, by patches alone, by the --model's pursuit of the whole picture (over
    /// all shifts where it has strides), or by its encoder as a network that was trained to (`train --task denoise`). Default: groups,
    /// which reach most
    #[arg(long, value_name = "NAME", value_parser = flags::names::<Method>(), default_value = "auto", hide_default_value = true)]
    method: Method,
    /// Standard deviation of the noise, or one for each channel: of 0 to 255 for pictures of 8 bits, of 0 to 65535 for those of 16, in
    /// their own units for arrays; auto measures it, one for each channel where they differ by a fifth or more. Default: auto, or 0 with
    /// --mask, --missing, --salt-and-pepper or --upscale
    #[arg(long, value_name = "SIGMA|R,G,B|auto", value_parser = noise_of)]
    noise: Option<Noise>,
    /// Picture or array of the same size that is not zero where pixels are known
    #[arg(long, value_name = "PATH", conflicts_with = "missing")]
    mask: Option<PathBuf>,
    /// Value that missing pixels have in all channels: of pictures a whole number from 0 to white; nan in arrays, too
    #[arg(long, value_name = "VALUE")]
    missing: Option<f32>,
    /// Pixels that are black or white, unlike those around them, are missing
    #[arg(long, conflicts_with_all = ["mask", "missing"])]
    salt_and_pepper: bool,
    /// The picture was convolved with this kernel, whose sum does not matter: an array [height, width] with its centre in row ⌊height/2⌋
    /// and column ⌊width/2⌋, or gaussian:S with a standard deviation of S pixels; of the larger picture, before it was reduced, with
    /// --upscale. What lay beyond the borders is unknown
    #[arg(long, value_name = "KERNEL.npy|gaussian:S")]
    blur: Option<String>,
    /// The picture was reduced by this factor, 2, 3 or 4 ("bicubic" with antialiasing): the one to write is so much larger
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4))]
    upscale: Option<u32>,
    /// The colours of patches that are alike share their atoms, too
    #[arg(long)]
    joint_colours: bool,
    /// The same picture as it should come out, for PSNR and SSIM (as scikit-image defines them; of arrays its range is the peak); a folder
    /// with pictures of the same names where --data is one
    #[arg(long, value_name = "CLEAN")]
    reference: Option<PathBuf>,
    /// Array .npy, of pictures [channels, height, width], for what was seen without what the result would look like, in units of σ (where
    /// that is
    /// 0 in the picture's own):
    /// structure in it is what the picture lost. 0 where it says nothing: in missing pixels, and as near to the borders as a blur reaches
    #[arg(long, value_name = "F.npy")]
    residual: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Least time between two lines that say how many pictures are done.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// What a blur by a normal distribution begins with on the command line.
const GAUSSIAN: &str = "gaussian:";

/// How strong the noise is said to be.
#[derive(Debug, Clone, PartialEq)]
enum Noise {
    Measured,
    /// For all channels, or one for each.
    Known(Vec<f32>),
}

/// How many times as strong it is where the colours of a channel help no other one.
const FAR_APART: f32 = 2.5;

fn noise_of(text: &str) -> std::result::Result<Noise, String> {
    if text == "auto" {
        return Ok(Noise::Measured);
    }
    let sigmas: Option<Vec<f32>> = text.split(',').map(|sigma| sigma.trim().parse().ok()).collect();
    let sigmas = sigmas.filter(|sigmas| sigmas.iter().all(|sigma| sigma.is_finite() && *sigma >= 0.0));
    sigmas.map(Noise::Known).ok_or_else(|| "expected auto, or a finite number ≥ 0 or one for each channel".into())
}

fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"))
}

/// Why noise cannot be measured.
const UNMEASURED: &str =
    "--noise auto needs at least 3 rows and columns, and enough known pixels near each other: expected --noise SIGMA";

fn unmeasured(source: &Path) -> Error {
    Error::format(source, UNMEASURED)
}

/// An error with one picture, with the name of its file.
fn of_picture(source: &Path, error: Error) -> Error {
    Error::format(source, flags::named::<RestoreArgs>(error).to_string())
}

/// Strength of the noise in every channel, by measurement.
fn measured(input: &Input, picture: &Picture, known: Option<&[bool]>) -> Option<Vec<f32>> {
    // What is behind pixels that cannot be seen was never photographed.
    let seen = input.seen();
    let readable = match (known, &seen) {
        (Some(known), Some(seen)) => Some(known.iter().zip(seen).map(|(known, seen)| *known && *seen).collect()),
        (Some(known), None) => Some(known.to_vec()),
        (None, seen) => seen.clone(),
    };
    // Where hardly anything is opaque all pixels have to do.
    noise::estimate_each(picture, readable.as_deref()).or_else(|| noise::estimate_each(picture, known))
}

/// Part of the range of the values below which what is measured may be fine texture as well as noise.
const TEXTURE: f32 = 0.03;

/// Part of the range of the values below which noise is next to nothing.
const SLIGHT: f32 = 0.01;

/// How many times stronger or weaker than measured noise may be said to be before that is remarked on: it is in other units, then.
const OTHER_UNITS: f32 = 8.0;

/// A file to read and one to write.
type Job = (PathBuf, PathBuf);

/// A picture of a file, and what it takes to write it back.
enum Input {
    Still(Still),
    /// Extents and type of the numbers as in the file, and whether the last are channels.
    Array {
        extents: Vec<usize>,
        channels_last: bool,
        stored: NumberType,
    },
}

/// Parses the name of a layout that a picture can have.
fn layouts() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(["maps", "channels-last"]).try_map(|name| name.parse::<Layout>())
}

/// Lowest and highest value of the pixels that are known.
fn value_range(picture: &Picture, known: Option<&[bool]>) -> [f32; 2] {
    let pixels = picture.pixels();
    let values = picture.values.iter().enumerate();
    let values = values.filter(|(at, value)| value.is_finite() && known.is_none_or(|known| known[at % pixels]));
    values.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], (_, &value)| [low.min(value), high.max(value)])
}

impl Input {
    /// An array whose first or last axis are channels as `layout` says; without it by what they look like.
    fn open(path: &Path, layout: Option<Layout>) -> Result<(Self, Picture)> {
        if is_array(path) {
            let (array, stored) = npy::read_typed_array(path)?;
            let (channels_last, [channels, height, width]) = match array.shape[..] {
                [height, width] => (false, [1, height, width]),
                [height, width, channels]
                    if layout == Some(Layout::ChannelsLast)
                        || (layout.is_none() && looks_channels_last(&array.shape)) =>
                {
                    (true, [channels, height, width])
                }
                [channels, height, width] => (false, [channels, height, width]),
                _ => {
                    let expected = "[height, width], [channels, height, width] or [height, width, channels]";
                    return Err(Error::shape(format!("{}", path.display()), expected, format!("{:?}", array.shape)));
                }
            };
            let values = match channels_last {
                true => transposed(&array.values, height * width, channels),
                false => array.values,
            };
            let input = Self::Array { extents: array.shape, channels_last, stored };
            return Ok((input, Picture::new(channels, height, width, values)?));
        }
        let still = Still::open(path)?;
        let shape = still.shape();
        let picture = Picture::new(shape.channels, shape.height, shape.width, still.values())?;
        Ok((Self::Still(still), picture))
    }

    /// Lowest and highest value that there can be, or that there are.
    fn limits(&self, picture: &Picture, known: Option<&[bool]>) -> [f32; 2] {
        match self {
            Self::Still(still) => [0.0, still.white()],
            Self::Array { .. } => value_range(picture, known),
        }
    }

    /// The extents of a picture of another size, perhaps, as an array like the file's.
    fn extents(&self, picture: &Picture) -> Vec<usize> {
        let Self::Array { extents, channels_last, .. } = self else {
            return vec![picture.channels, picture.height, picture.width];
        };
        let mut extents = extents.clone();
        let at = if *channels_last { 0 } else { extents.len() - 2 };
        extents[at..at + 2].copy_from_slice(&[picture.height, picture.width]);
        extents
    }

    /// Values of so many channels in the order of the file's axes.
    fn laid_out<'a>(&self, values: &'a [f32], channels: usize) -> Cow<'a, [f32]> {
        match self {
            Self::Array { channels_last: true, .. } => transposed(values, channels, values.len() / channels).into(),
            _ => values.into(),
        }
    }

    /// Which pixels can be seen, where some are wholly transparent.
    fn seen(&self) -> Option<Vec<bool>> {
        match self {
            Self::Still(still) => still.seen(),
            Self::Array { .. } => None,
        }
    }

    /// Whether a file of that name can be written like it.
    fn check_output(&self, out: &Path) -> Result<()> {
        match self {
            Self::Still(still) => still.check_output(out).map_err(flags::named::<RestoreArgs>),
            Self::Array { .. } => Ok(()),
        }
    }

    /// Writes values in place of the picture's own, made larger by a factor; returns how many had to be clipped.
    fn write(&self, out: &Path, picture: &Picture, factor: usize) -> Result<usize> {
        match self {
            Self::Still(still) => {
                let encoded = still.enlarged(factor).encode(out, &picture.values);
                let (bytes, clipped) = encoded.map_err(flags::named::<RestoreArgs>)?;
                files::write_bytes(out, &bytes)?;
                Ok(clipped)
            }
            Self::Array { stored, .. } => {
                let values = self.laid_out(&picture.values, picture.channels);
                arrays::write_npy_as(out, &self.extents(picture), &values, *stored)
            }
        }
    }
}

/// A method with what it needs.
enum Way {
    Patches(Box<PatchDictionary>),
    Pursuit(Box<Mlcsc>, CodingDefaults),
    Network(Box<SparseAutoencoder>, [f32; 2]),
}

impl Way {
    /// Whether the host's cores do the work, whatever the device.
    fn is_on_host(&self) -> bool {
        matches!(self, Self::Patches(_))
    }

    /// The method's name, `asked` being what was asked for.
    fn method(&self, asked: Method) -> String {
        match (self, asked) {
            (Self::Patches(_), Method::Auto) => Method::Groups.to_string(),
            (_, asked) => asked.to_string(),
        }
    }

    /// How many atoms of how many channels, rows and columns.
    fn atoms(&self) -> (usize, usize, [usize; 2]) {
        let of = |[count, channels, height, width]: [usize; 4]| (count, channels, [height, width]);
        match self {
            Self::Patches(dictionary) => (dictionary.count(), dictionary.channels(), dictionary.size()),
            Self::Pursuit(model, _) => of(model.effective_filters(model.depth()).dims()),
            Self::Network(network, _) => of(network.atoms().dims()),
        }
    }

    /// The restored picture, and by what its values were multiplied for a network. Values of pictures are learned from in parts of white.
    fn restore(
        &self,
        picture: &Picture,
        observation: &Observation,
        config: &RestoreConfig,
        white: f32,
        progress: impl Fn(f32) -> bool + Sync,
    ) -> Result<Option<(Denoised, f32)>> {
        let scaled_by = |scale: f32, picture: &Picture| {
            let values = picture.values.iter().map(|value| scale * value).collect();
            Picture { values, ..*picture }
        };
        let whole = |picture| Denoised { picture, convergence: Convergence::default(), objective: None };
        match self {
            Self::Patches(dictionary) => {
                Ok(restore(picture, observation, dictionary, config, progress)?.map(|picture| (whole(picture), 1.0)))
            }
            _ if config.sigma == 0.0 => Ok(Some((whole(picture.clone()), 1.0))),
            Self::Pursuit(model, coding) => {
                let (units, sigma) = (scaled_by(1.0 / config.range, picture), config.sigma / config.range);
                let found = by_pursuit(&units, model, sigma, coding.nonnegative, progress)?;
                let found = found.map(|found| Denoised { picture: scaled_by(config.range, &found.picture), ..found });
                Ok(found.map(|found| (found, 1.0)))
            }
            Self::Network(network, [least, most]) => {
                let sigma = config.sigma / white;
                // A network knows the noise that it was trained with, and no other.
                let scale = if sigma > 0.0 { sigma.clamp(*least, *most) / sigma } else { 1.0 };
                let units = scaled_by(scale / white, picture);
                let found = by_network(&units, network, progress)?;
                Ok(found.map(|found| (whole(scaled_by(white / scale, &found)), scale)))
            }
        }
    }
}

impl Way {
    /// [`Self::restore`] where channels have noise of strengths of their own. If these are not far apart, channels are scaled to noise of one
    /// strength; else each is restored by itself, if atoms are of one channel.
    fn restore_uneven(
        &self,
        picture: &Picture,
        observation: &Observation,
        config: &RestoreConfig,
        sigmas: &[f32],
        white: f32,
        progress: impl Fn(f32) -> bool + Sync,
    ) -> Result<Option<(Denoised, f32)>> {
        let [least, most] = noise::extremes(sigmas);
        let one_by_one = most > FAR_APART * least;
        if one_by_one && self.atoms().1 == 1 {
            let (mut planes, mut convergence, mut scale, count) =
                (Vec::new(), Convergence::default(), None::<f32>, sigmas.len());
            for (channel, (&sigma, plane)) in
                sigmas.iter().zip(picture.values.chunks_exact(picture.pixels())).enumerate()
            {
                let plane = Picture::new(1, picture.height, picture.width, plane.to_vec())?;
                let config = RestoreConfig { sigma, ..config.clone() };
                let part = |done: f32| progress((channel as f32 + done) / count as f32);
                let found = self.restore(&plane, observation, &config, white, part)?;
                let Some((found, scaled)) = found else { return Ok(None) };
                convergence.merge(&found.convergence);
                // That of the channel that is farthest from what the method knows.
                scale = scale.filter(|scale| scale.ln().abs() >= scaled.ln().abs()).or(Some(scaled));
                planes.push(found.picture);
            }
            let (height, width) = (planes[0].height, planes[0].width);
            let values = planes.into_iter().flat_map(|plane| plane.values).collect();
            let picture = Picture::new(count, height, width, values)?;
            return Ok(Some((Denoised { picture, convergence, objective: None }, scale.unwrap_or(1.0))));
        }
        // Noise that is next to nothing is taken to be a little more.
        let least = most / FAR_APART;
        let strengths: Vec<f32> = sigmas.iter().map(|sigma| sigma.max(least)).collect();
        let scaled = |picture: &Picture, scale: &dyn Fn(usize) -> f32| {
            let pixels = picture.pixels();
            let values = picture.values.iter().enumerate().map(|(at, value)| scale(at / pixels) * value).collect();
            Picture { values, ..*picture }
        };
        // The range grows with the channel that is multiplied by most.
        let larger = most / noise::extremes(&strengths)[0];
        let config = RestoreConfig { sigma: most, range: larger * config.range, ..config.clone() };
        let even = scaled(picture, &|channel| most / strengths[channel]);
        let found = self.restore(&even, observation, &config, larger * white, progress)?;
        Ok(found.map(|(found, scale)| {
            let picture = scaled(&found.picture, &|channel| strengths[channel] / most);
            (Denoised { picture, objective: None, ..found }, scale)
        }))
    }
}

impl RestoreArgs {
    pub(super) fn run(&self) -> Result<()> {
        let (mut jobs, mut skipped) = self.jobs()?;
        let way = self.way()?;
        let inputs = Inputs::default()
            .and("--model", self.model.as_deref())
            .and("--mask", self.mask.as_deref())
            .and("--blur", self.kernel_file())
            .and("--reference", self.reference.as_deref())
            .and_data(self.data.to_str());
        for (source, out) in &jobs {
            let own = Inputs::default().and("--data", source.as_path());
            let own = own.and("--reference", self.reference_of(source).as_deref());
            inputs.refuse("--out", out)?;
            own.refuse("--out", out)?;
        }
        if let Some(residual) = &self.residual {
            if !is_array(residual) || jobs.iter().any(|(_, out)| out == residual) {
                let expected = "an array F.npy, and another file than --out";
                return Err(Error::parameter("--residual", residual.display(), expected));
            }
            inputs.refuse("--residual", residual)?;
            files::check_writable(residual)?;
        }
        let mut observation = Observation::default().reduced_by(self.factor());
        if let Some(blur) = self.blur()? {
            observation = observation.blurred(blur);
        }
        if self.data.is_dir() {
            files::check_writable_folder(&self.out)?;
            // A file that cannot be read or written is reported before the first is restored.
            let check = |(source, out): &Job| {
                let (input, picture) = Input::open(source, self.layout)?;
                input.check_output(out)?;
                observation.check([picture.height, picture.width]).map_err(|error| of_picture(source, error))?;
                let known = self.known(&input, &picture)?;
                self.reference(source, &input, &picture)?;
                Ok(self.sigmas(source, &input, &picture, known.as_deref())?.is_some())
            };
            let measured = jobs.par_iter().map(check).collect::<Vec<Result<bool>>>();
            let measured = measured.into_iter().collect::<Result<Vec<bool>>>()?;
            skipped = self.without_unmeasured(&mut jobs, &measured, skipped)?;
            files::create_folder(&self.out)?;
        } else {
            for (_, out) in &jobs {
                files::check_writable(out)?;
            }
        }
        #[cfg(feature = "cube")]
        if way.is_on_host() && !crate::device::is_host(&self.device.open()?) {
            crate::device::left_to_host("restoring by patches");
        }
        interrupt::watch();
        let progress = Progress::new("restoring", PER_PICTURE, 1000 * jobs.len() as u64);
        let (mut rows, mut told) = (Vec::with_capacity(jobs.len()), Instant::now());
        for (index, (source, out)) in jobs.iter().enumerate() {
            let place = |part: f32| 1000 * index as u64 + (1000.0 * part) as u64;
            let row = self.restore_one(source, out, &way, &observation, |part| {
                progress.set(place(part));
                !interrupt::interrupted()
            });
            rows.push(row?);
            // Whoever waits for a folder wants to know how far it is; a moment needs no words.
            if jobs.len() > 1 && told.elapsed() > BETWEEN_LINES {
                told = Instant::now();
                progress.line(&format!("{} of {}: {}", index + 1, jobs.len(), out.display()));
            }
        }
        progress.finish();
        self.tell(&way, &rows, skipped)
    }

    /// The way that was asked for, with what it needs.
    fn way(&self) -> Result<Way> {
        self.device.check()?;
        if let Some(layout) = self.layout.filter(|_| self.data.is_file() && !is_array(&self.data)) {
            return Err(Error::parameter(
                "--layout",
                layout,
                "none for a picture, whose file says where its channels are",
            ));
        }
        let others = [
            ("--mask", self.mask.is_some()),
            ("--missing", self.missing.is_some()),
            ("--salt-and-pepper", self.salt_and_pepper),
            ("--blur", self.blur.is_some()),
            ("--upscale", self.upscale.is_some()),
            ("--joint-colours", self.joint_colours),
        ];
        let groups = matches!(self.method, Method::Auto | Method::Groups);
        if let Some((flag, _)) = others.into_iter().find(|(_, given)| *given && !groups) {
            let expected = format!("none with --method {}, which takes off noise alone", self.method);
            return Err(Error::parameter(flag, "given", expected));
        }
        if !matches!(self.method, Method::Pursuit | Method::Network) {
            let dictionary = match &self.model {
                None => PatchDictionary::photographs(),
                Some(path) => {
                    let (model, _) = Mlcsc::load(path, &self.device.open()?)?;
                    PatchDictionary::of_model(&model).map_err(flags::named::<Self>)?
                }
            };
            return Ok(Way::Patches(Box::new(dictionary)));
        }
        let Some(path) = &self.model else {
            return Err(Error::missing("--model", format!("the model that --method {} runs", self.method)));
        };
        let device = self.device.open()?;
        if self.method == Method::Pursuit {
            let (model, coding) = Mlcsc::load(path, &device)?;
            return Ok(Way::Pursuit(Box::new(model), coding));
        }
        let expected = "a model with an encoder that was trained by `train --method unrolled --task denoise`";
        if !has_encoder(path)? {
            return Err(Error::format(path, format!("expected {expected}, found no encoder")));
        }
        let network = SparseAutoencoder::load(path, &device)?;
        match network.config().denoises {
            Some(range) => Ok(Way::Network(Box::new(network), range)),
            None => Err(Error::format(path, format!("expected {expected}, found one that was trained to reconstruct"))),
        }
    }

    /// How many times larger the result is.
    fn factor(&self) -> usize {
        self.upscale.map_or(1, |factor| factor as usize)
    }

    /// What is written for a file of that name where --out is a folder.
    fn within_out(&self, path: &Path) -> Option<PathBuf> {
        let mut out = self.out.join(path.file_name()?);
        // A bitmap is black and white; what comes out has shades.
        if out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pbm")) {
            out.set_extension("pgm");
        }
        Some(out)
    }

    /// The file that is written for a single one: in --out, if that is a folder.
    fn out_of_one(&self) -> PathBuf {
        let within = if self.out.is_dir() { self.within_out(&self.data) } else { None };
        within.unwrap_or_else(|| self.out.clone())
    }

    /// The files to read, and those to write; what is passed over.
    fn jobs(&self) -> Result<(Vec<Job>, Option<String>)> {
        if !self.data.is_dir() {
            if let Some(reference) = self.reference.as_ref().filter(|reference| reference.is_dir()) {
                return Err(Error::parameter("--reference", reference.display(), "a picture, as --data is one"));
            }
            if self.data.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz")) {
                let expected = "a picture or an array .npy, as np.save writes it, instead of an archive of arrays";
                return Err(Error::parameter("--data", self.data.display(), expected));
            }
            if is_array(&self.data) != is_array(&self.out_of_one()) {
                let expected =
                    if is_array(&self.data) { "an array F.npy, as --data is" } else { "a picture, as --data is" };
                return Err(Error::parameter("--out", self.out.display(), expected));
            }
            return Ok((vec![(self.data.clone(), self.out_of_one())], None));
        }
        let reference = self.reference.as_ref().filter(|reference| !reference.is_dir());
        for (flag, file) in
            [("--mask", self.mask.as_ref()), ("--reference", reference), ("--residual", self.residual.as_ref())]
        {
            if let Some(file) = file {
                let expected = match flag {
                    "--reference" => "a folder with pictures of the same names, as --data is one",
                    _ => "--data with a single picture",
                };
                return Err(Error::parameter(flag, file.display(), expected));
            }
        }
        let (paths, skipped) = pictures_and_arrays(&self.data)?;
        if let Some(skipped) = &skipped {
            output::complain(skipped);
        }
        let named = |path: PathBuf| self.within_out(&path).map(|out| (path, out));
        let jobs: Vec<Job> = paths.into_iter().filter_map(named).collect();
        if jobs.is_empty() {
            return Err(Error::format(&self.data, "expected pictures or arrays, found none"));
        }
        // `a.pbm` and `a.pgm` would be written to one file.
        let twice = jobs.iter().enumerate().find(|(at, (_, out))| jobs[..*at].iter().any(|(_, other)| other == out));
        if let Some((_, (source, out))) = twice {
            let reason = format!("expected another name: {} is written for another picture, too", out.display());
            return Err(Error::format(source, reason));
        }
        Ok((jobs, skipped))
    }

    /// Leaves out pictures whose noise cannot be measured; says which, and what was passed over before.
    fn without_unmeasured(
        &self,
        jobs: &mut Vec<Job>,
        measured: &[bool],
        skipped: Option<String>,
    ) -> Result<Option<String>> {
        let left_out = jobs.iter().zip(measured).filter(|(_, measured)| !**measured);
        let names: Vec<String> = left_out.map(|((source, _), _)| source.display().to_string()).collect();
        let Some(first) = names.first() else { return Ok(skipped) };
        if names.len() == jobs.len() {
            return Err(unmeasured(Path::new(first)));
        }
        let others = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
        let line = format!("skipped {first}{others}: {UNMEASURED}");
        output::complain(&line);
        let mut measured = measured.iter();
        jobs.retain(|_| measured.next() == Some(&true));
        Ok(Some(skipped.into_iter().chain([line]).collect::<Vec<_>>().join("; ")))
    }

    /// The file of the kernel, if there is one.
    fn kernel_file(&self) -> Option<&Path> {
        self.blur.as_deref().filter(|blur| !blur.starts_with(GAUSSIAN)).map(Path::new)
    }

    /// The blur that was named.
    fn blur(&self) -> Result<Option<Blur>> {
        let Some(text) = &self.blur else { return Ok(None) };
        if let Some(sigma) = text.strip_prefix(GAUSSIAN) {
            let expected = || Error::parameter("--blur", text, "gaussian:S with a standard deviation S in pixels");
            let sigma = sigma.parse().map_err(|_| expected())?;
            return Blur::gaussian(sigma).map(Some).map_err(flags::named::<Self>);
        }
        let path = Path::new(text);
        if !is_array(path) {
            return Err(Error::parameter("--blur", text, "KERNEL.npy or gaussian:S"));
        }
        let array = npy::read_array(path)?;
        let [height, width] = array.shape[..] else {
            let expected = "[height, width]";
            return Err(Error::shape(path.display().to_string(), expected, format!("{:?}", array.shape)));
        };
        Blur::new([height, width], &array.values)
            .map(Some)
            .map_err(|error| Error::format(path, flags::named::<Self>(error).to_string()))
    }

    /// Which pixels are known, where some are not.
    fn known(&self, input: &Input, picture: &Picture) -> Result<Option<Vec<bool>>> {
        let pixels = picture.pixels();
        if let Some(path) = &self.mask {
            let (kind, mask) = Input::open(path, self.layout)?;
            if let Input::Still(still) = &kind
                && still.has_alpha()
            {
                let expected =
                    "expected a mask whose pixels are black where some are missing, found one with transparency";
                return Err(Error::format(path, expected));
            }
            if let Some(value) = mask.values.iter().find(|value| !value.is_finite()) {
                return Err(Error::format(path, format!("expected a mask of finite numbers, found {value}")));
            }
            if [mask.height, mask.width] != [picture.height, picture.width] {
                let [expected, found] = [picture, &mask].map(|of| format!("{}x{}", of.height, of.width));
                let reason =
                    format!("expected a --mask of {expected} pixels (height x width), as --data, found {found}");
                return Err(Error::format(path, reason));
            }
            let planes = || mask.values.chunks_exact(pixels);
            let known = |at: usize| planes().map(move |plane| plane[at] != 0.0);
            if let Some(at) = (0..pixels).find(|&at| known(at).any(|value| value) && known(at).any(|value| !value)) {
                let (row, column) = (at / mask.width, at % mask.width);
                let reason = format!(
                    "expected a --mask whose channels agree, found one in which some of row {row}, column {column} are zero"
                );
                return Err(Error::format(path, reason));
            }
            return Ok(Some((0..pixels).map(|at| known(at).any(|value| value)).collect()));
        }
        if let Some(missing) = self.missing {
            if let Input::Still(still) = input
                && !((0.0..=still.white()).contains(&missing) && missing.fract() == 0.0)
            {
                let expected = format!("a whole number from 0 to {}, as the values of --data are", still.white());
                return Err(Error::parameter("--missing", missing, expected));
            }
            let is_missing = |value: f32| value == missing || (value.is_nan() && missing.is_nan());
            let planes = || picture.values.chunks_exact(pixels);
            let known: Vec<bool> = (0..pixels).map(|at| !planes().all(|plane| is_missing(plane[at]))).collect();
            if !known.contains(&true) {
                return Err(Error::parameter("--missing", missing, "a value that some pixels do not have"));
            }
            return Ok(Some(known));
        }
        let known = self.salt_and_pepper.then(|| salt_and_pepper(picture, input.limits(picture, None)));
        if known.as_ref().is_some_and(|known| !known.contains(&true)) {
            let expected = "a picture that is not black and white all over";
            return Err(Error::parameter("--salt-and-pepper", "given", expected));
        }
        Ok(known)
    }

    /// The strength of the noise in every channel, and whether it was measured; `None` where it cannot be.
    fn sigmas(
        &self,
        source: &Path,
        input: &Input,
        picture: &Picture,
        known: Option<&[bool]>,
    ) -> Result<Option<(Vec<f32>, bool)>> {
        let channels = picture.channels;
        let given = match &self.noise {
            Some(Noise::Known(sigmas)) => Some(sigmas.clone()),
            None if known.is_some() || self.upscale.is_some() => Some(vec![0.0]),
            _ => None,
        };
        if let Some(sigmas) = given {
            return match sigmas.len() {
                1 => Ok(Some((vec![sigmas[0]; channels], false))),
                len if len == channels => Ok(Some((sigmas, false))),
                len => {
                    let expected = format!("one, or {channels}, as the channels of {}", source.display());
                    Err(Error::parameter("--noise", counted(len, "number"), expected))
                }
            };
        }
        Ok(measured(input, picture, known).map(|measured| (measured, true)))
    }

    /// The file that a picture is to be compared with.
    fn reference_of(&self, source: &Path) -> Option<PathBuf> {
        let path = self.reference.as_ref()?;
        Some(if path.is_dir() { path.join(source.file_name()?) } else { path.clone() })
    }

    /// What a picture is to be compared with.
    fn reference(&self, source: &Path, input: &Input, picture: &Picture) -> Result<Option<(Input, Picture)>> {
        let Some(path) = self.reference_of(source) else { return Ok(None) };
        let (kind, mut reference) = Input::open(&path, self.layout)?;
        if let (Input::Still(own), Input::Still(other)) = (input, &kind) {
            let scale = own.white() / other.white();
            reference.values.iter_mut().for_each(|value| *value *= scale);
        }
        let shape = [reference.channels, reference.height, reference.width];
        let expected = [picture.channels, self.factor() * picture.height, self.factor() * picture.width];
        if shape != expected {
            let larger = if self.upscale.is_some() { " made larger" } else { "" };
            let expected = format!("shape {expected:?}, as --data{larger}");
            return Err(Error::parameter(format!("--reference {}", path.display()), format!("{shape:?}"), expected));
        }
        Ok(Some((kind, reference)))
    }

    /// What is odd about the strength that noise is said to have.
    fn strength_warning(
        &self,
        input: &Input,
        picture: &Picture,
        known: Option<&[bool]>,
        sigmas: &[f32],
    ) -> Option<String> {
        let Some(Noise::Known(_)) = self.noise else { return None };
        let found = measured(input, picture, known)?;
        let ([_, said], [_, found]) = (noise::extremes(sigmas), noise::extremes(&found));
        let ratio = if said > 0.0 { found / said } else { 1.0 };
        let white = match input {
            Input::Still(still) => format!(" (white is {})", still.white()),
            Input::Array { .. } => String::new(),
        };
        let [low, high] = value_range(picture, known);
        // Of next to nothing there may be many times as much.
        let counts = found.max(said) > SLIGHT * (high - low);
        let odd = ratio > OTHER_UNITS || (ratio > 0.0 && ratio < 1.0 / OTHER_UNITS);
        (counts && odd).then(|| {
            format!("--noise says σ {}, and σ {} was measured{white}", number(said.into()), number(found.into()))
        })
    }

    fn restore_one(
        &self,
        source: &Path,
        out: &Path,
        way: &Way,
        observation: &Observation,
        progress: impl Fn(f32) -> bool + Sync,
    ) -> Result<Value> {
        let clock = Instant::now();
        let (input, picture) = Input::open(source, self.layout)?;
        input.check_output(out)?;
        let known = self.known(&input, &picture)?;
        let reference = self.reference(source, &input, &picture)?;
        let missing = known.as_ref().map_or(0, |known| known.iter().filter(|known| !**known).count());
        let [low, high] = input.limits(&picture, known.as_deref());
        // Nothing but NaN has no range.
        let range = if high > low {
            high - low
        } else {
            Some(high.abs()).filter(|high| high.is_finite()).unwrap_or(1.0).max(1.0)
        };
        let found = self.sigmas(source, &input, &picture, known.as_deref())?;
        let (sigmas, was_measured) = found.ok_or_else(|| unmeasured(source))?;
        let mut observation = observation.clone();
        if let Some(known) = &known {
            observation = observation.known_in(known.clone());
        }
        let failed = |error: Error| of_picture(source, error);
        observation.check([picture.height, picture.width]).map_err(failed)?;
        // Less than that may be texture as well.
        let [least, most] = value_range(&picture, known.as_deref());
        let weak = noise::extremes(&sigmas)[1] < TEXTURE * (most - least).max(0.0);
        let texture = was_measured && weak && sigmas.iter().any(|sigma| *sigma > 0.0);
        let warning = self.strength_warning(&input, &picture, known.as_deref(), &sigmas);
        if let Some(warning) = &warning {
            output::complain(&format!("warning: {}: {warning}", source.display()));
        }
        if self.joint_colours && picture.channels == 1 {
            output::complain(&format!("note: --joint-colours does nothing to {}, which is grey", source.display()));
        }
        let even = sigmas.iter().all(|sigma| *sigma == sigmas[0]);
        let together = self.method != Method::Patches;
        let joint_colours = self.joint_colours;
        let config = RestoreConfig { sigma: sigmas[0], range, together, joint_colours, ..RestoreConfig::default() };
        let white = match &input {
            Input::Still(still) => still.white(),
            Input::Array { .. } => 1.0,
        };
        let denoised = match even {
            true => way.restore(&picture, &observation, &config, white, progress),
            false => way.restore_uneven(&picture, &observation, &config, &sigmas, white, progress),
        };
        let denoised = denoised.map_err(failed)?;
        let Some((Denoised { picture: restored, convergence, objective }, scaled)) = denoised else {
            return Err(Error::Interrupted(format!("{} was not written", out.display())));
        };
        let clipped = input.write(out, &restored, self.factor())?;
        let pixels = picture.pixels();
        // Near the borders a blur brings in what nobody saw.
        let [rows, columns] = observation.reach();
        let is_known = |at: usize| {
            let (row, column) = (at % pixels / picture.width, at % picture.width);
            let far = |place: usize, reach: usize, len: usize| (reach..len.saturating_sub(reach)).contains(&place);
            let inner = far(row, rows, picture.height) && far(column, columns, picture.width);
            inner && known.as_ref().is_none_or(|known| known[at % pixels])
        };
        // Channels without noise have nothing to be taken off.
        let is_noisy = |at: usize| sigmas[at / pixels] > 0.0;
        let count = (0..picture.values.len()).filter(|at| is_known(*at) && is_noisy(*at)).count() as f64;
        let seen = observation.seen(&restored)?;
        let pairs = picture.values.iter().zip(&seen.values).enumerate();
        let taken: Vec<f32> =
            pairs.map(|(at, (noisy, clean))| if is_known(at) { noisy - clean } else { 0.0 }).collect();
        // In units of each channel's noise.
        let in_sigmas: Vec<f32> = taken
            .iter()
            .enumerate()
            .map(|(at, value)| value / if sigmas[at / pixels] > 0.0 { sigmas[at / pixels] } else { 1.0 })
            .collect();
        let noisy: Vec<f32> =
            in_sigmas.iter().enumerate().filter(|(at, _)| is_noisy(*at)).map(|(_, value)| *value).collect();
        let length = (energy(&noisy) / count).sqrt();
        if let Some(path) = &self.residual {
            let extents = input.extents(&picture);
            arrays::write_npy(path, &extents, &input.laid_out(&in_sigmas, picture.channels))?;
        }
        let mut row = json!({
            "data": output::shown(source), "out": output::shown(out), "channels": picture.channels, "height": picture.height, "width": picture.width,
            "sigma": (energy(&sigmas) / sigmas.len() as f64).sqrt() as f32, "sigmas": sigmas, "measured": was_measured,
            "may_be_texture": texture, "missing": missing, "range": range,
            "blur": self.blur, "upscale": self.factor(), "scaled": scaled,
            "objective": objective.map(|[reached, _]| reached), "objective_bound": objective.map(|[_, bound]| bound),
            "not_converged": (convergence.above > 0).then_some(convergence),
            "taken_off_in_sigmas": (count > 0.0).then_some(length),
            "clipped": clipped, "warning": warning,
            "seconds": clock.elapsed().as_secs_f64(),
        });
        if let Some((_, reference)) = reference {
            // What was written, rounding included.
            let (_, written) = Input::open(out, self.layout)?;
            let shape = [restored.channels, restored.height, restored.width];
            let peak = match &input {
                Input::Still(still) => still.white(),
                Input::Array { .. } => {
                    let [low, high] = input.limits(&reference, None);
                    high - low
                }
            };
            // What stands in place of missing pixels says nothing.
            let comparable = (missing == 0 || self.salt_and_pepper) && self.upscale.is_none();
            let before = Some(("before", &picture)).filter(|_| comparable);
            for (name, picture) in before.into_iter().chain([("", &written)]) {
                let name = |what: &str| if name.is_empty() { what.to_owned() } else { format!("{what}_{name}") };
                let found = psnr(&reference.values, &picture.values, peak)?;
                row[name("psnr")] = json!(found.is_finite().then_some(found));
                // JSON has no number for the decibels of equal pictures.
                row[name("equal")] = json!(reference.values == picture.values);
                row[name("ssim")] = json!(ssim(&reference.values, &picture.values, shape, peak)?);
            }
        }
        Ok(row)
    }

    fn tell(&self, way: &Way, rows: &[Value], skipped: Option<String>) -> Result<()> {
        let (count, channels, [height, width]) = way.atoms();
        let atoms = format!("{count} atoms of {channels}x{height}x{width}");
        let of = self
            .model
            .as_ref()
            .map_or("photographs, which come with the program".into(), |path| path.display().to_string());
        if self.json {
            let model = json!({ "atoms": count, "channels": channels, "size": [height, width], "path": self.model.as_deref().map(output::shown) });
            let method = way.method(self.method);
            let document = json!({
                "method": method,
                "dictionary": model,
                "pictures": rows,
                "skipped": skipped,
                "device": if way.is_on_host() { "host".into() } else { self.device.name() },
                "precision": crate::device::precision(),
            });
            return output::print_json(&document);
        }
        let mut summary = Summary::new(format!("restored {}", counted(rows.len(), "picture")));
        summary.row("method", way.method(self.method));
        summary.row("dictionary", format!("{atoms} ({of})"));
        for row in rows {
            let value = |name: &str| row[name].as_f64();
            let how = match row["measured"] == true {
                true if row["may_be_texture"] == true => ", measured, fine texture included: --noise 0 keeps it",
                true => ", measured",
                false => "",
            };
            let strengths = row["sigmas"].as_array().into_iter().flatten();
            let mut strengths: Vec<String> =
                strengths.map(|sigma| number(sigma.as_f64().unwrap_or_default())).collect();
            strengths.dedup();
            // What is not seen as colours may have been meant as pictures.
            let size = match [&row["channels"], &row["height"], &row["width"]].map(Value::as_u64) {
                [Some(channels), Some(height), Some(width)] if !matches!(channels, 1 | 3) => {
                    format!("one picture of {channels} channels of {height}x{width}; ")
                }
                _ => String::new(),
            };
            let mut told = format!("{size}σ {}{how}", strengths.join(", "));
            let asked = self.mask.is_some() || self.missing.is_some() || self.salt_and_pepper;
            if let Some(missing) = row["missing"].as_u64().filter(|_| asked) {
                told.push_str(&format!("; {} missing", counted(missing as usize, "pixel")));
            }
            if let Some(taken) = value("taken_off_in_sigmas") {
                told.push_str(&format!("; taken off {} σ", number(taken)));
            }
            if let Some(clipped) = row["clipped"].as_u64().filter(|clipped| *clipped > 0) {
                told.push_str(&format!("; {} clipped", counted(clipped as usize, "value")));
            }
            if let Some(scaled) = value("scaled").filter(|scaled| *scaled != 1.0) {
                told.push_str(&format!("; scaled by {} to the noise that the network knows", number(scaled)));
            }
            if let (Some(reached), Some(bound)) = (value("objective"), value("objective_bound")) {
                told.push_str(&format!("; objective {}, certainly not below {}", number(reached), number(bound)));
            }
            if let Some(above) = row["not_converged"]["above"].as_u64().filter(|above| *above > 0) {
                told.push_str(&format!("; {} above the gap asked for", counted(above as usize, "pursuit")));
            }
            let decibels = |which: &str| match row[format!("equal{which}")] == true {
                true => Some("∞".to_owned()),
                false => value(&format!("psnr{which}")).map(|found| format!("{found:.2}")),
            };
            if let Some(after) = decibels("") {
                let before = decibels("_before").map_or(String::new(), |before| format!("{before} → "));
                told.push_str(&format!("; PSNR {before}{after} dB"));
            } else if row.get("psnr").is_some() {
                told.push_str("; PSNR –");
            }
            if let Some(after) = value("ssim") {
                let before = value("ssim_before").map_or(String::new(), |before| format!("{before:.4} → "));
                told.push_str(&format!("; SSIM {before}{after:.4}"));
            } else if decibels("").is_some() {
                told.push_str("; SSIM –: needs at least 7x7 pixels");
            }
            told.push_str(&format!("; {:.1} s", value("seconds").unwrap_or_default()));
            summary.row(row["out"].as_str().unwrap_or_default(), told);
        }
        output::print(&summary.text())
    }
}
