//! The atoms that patches are made of.

use crate::error::{Error, Result};
use crate::kernels::sparse::to_host;
use crate::model::Mlcsc;
use crate::pursuit::joint::JointDictionary;
use burn::tensor::f16;

/// 512 atoms of 8×8 pixels, learned by this crate from 200,000 patches of grey photographs: values as little-endian `f16`, atom by atom.
/// Made by `mlcsc train --data FOLDER --patch 8 --patches 200000 --atoms 512 --kernel 8 --normalization center --target-nonzeros 8
/// --signed --epochs 4`.
const PHOTOGRAPHS: &[u8] = include_bytes!("photographs.f16");

/// Rows and columns of these.
const PHOTOGRAPHS_SIZE: [usize; 2] = [8, 8];

/// Atoms of patches: the effective atoms of a model, without their means.
#[derive(Debug, Clone)]
pub struct PatchDictionary {
    channels: usize,
    size: [usize; 2],
    pub(super) atoms: JointDictionary,
}

impl PatchDictionary {
    /// The effective atoms of a model's deepest layer, whatever the shape of its signals.
    ///
    /// # Errors
    /// Atoms of a single pixel, or with nothing but their means.
    pub fn of_model(model: &Mlcsc) -> Result<Self> {
        let atoms = model.effective_filters(model.depth());
        let [_, channels, height, width] = atoms.dims();
        Self::new(channels, [height, width], &to_host(atoms))
    }

    /// What comes with the crate: atoms of grey photographs, which also code the colour axes.
    pub fn photographs() -> Self {
        let values: Vec<f32> =
            PHOTOGRAPHS.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect();
        let len = PHOTOGRAPHS_SIZE[0] * PHOTOGRAPHS_SIZE[1];
        Self { channels: 1, size: PHOTOGRAPHS_SIZE, atoms: JointDictionary::new(&values, len) }
    }

    fn new(channels: usize, size: [usize; 2], atoms: &[f32]) -> Result<Self> {
        let pixels = size[0] * size[1];
        let mut atoms = atoms.to_vec();
        for plane in atoms.chunks_exact_mut(pixels) {
            let mean = plane.iter().sum::<f32>() / pixels as f32;
            plane.iter_mut().for_each(|value| *value -= mean);
        }
        let atoms = JointDictionary::new(&atoms, channels * pixels);
        if atoms.count() == 0 {
            let found = format!("atoms of {channels}x{}x{}", size[0], size[1]);
            return Err(Error::parameter("model", found, "atoms of several pixels that are more than their means"));
        }
        Ok(Self { channels, size, atoms })
    }

    /// Rows and columns of an atom.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Channels of an atom.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Number of atoms.
    pub fn count(&self) -> usize {
        self.atoms.count()
    }

    /// Whether it can code pictures of so many channels.
    pub(super) fn check_for(&self, channels: usize) -> Result<()> {
        if self.channels == 1 || self.channels == channels {
            return Ok(());
        }
        Err(Error::shape("channels of the picture", format!("{}, as the model's", self.channels), channels))
    }
}
