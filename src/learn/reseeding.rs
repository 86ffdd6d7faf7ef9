//! Atoms that start again, while a run goes on and while one is initialised.
//!
//! Atoms that no code uses start again as windows that the present dictionaries represent badly; where atoms overlap, others move
//! to the middle of their kernels (see [`super::alignment`]).

use super::alignment::{self, Explained};
use super::cascade::Cascade;
use super::statistics::Statistics;
use super::surrogate::{SurrogateUpdate, windows};
use crate::geometry::LayerGeometry;
use crate::kernels::sparse::norm;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Atoms of the deepest layer, and the windows that they start again from, one after the other.
pub(super) struct Fresh {
    pub atoms: Vec<usize>,
    pub targets: Vec<f32>,
}

impl Fresh {
    /// Windows for `dead` atoms; with `aligning`, for those as well that lie better elsewhere in their kernels.
    pub fn find(
        cascade: &Cascade,
        windows_of: &LayerGeometry,
        signals: &[f32],
        explained: Explained,
        (dead, aligning): (&[usize], bool),
        generator: ChaCha8Rng,
    ) -> Self {
        let (mut atoms, mut targets) = match aligning {
            true => alignment::moves(cascade, windows_of, explained),
            false => (Vec::new(), Vec::new()),
        };
        targets.extend(worst_windows(windows_of, (signals, explained.residuals), dead.len(), generator));
        atoms.extend(dead);
        // There may be fewer windows than dead atoms.
        atoms.truncate(targets.len() / windows_of.atom_len());
        Self { atoms, targets }
    }

    /// Lets them start again, and the statistics forget what they were.
    pub fn seed(&self, update: &SurrogateUpdate, statistics: Option<&mut Statistics>, cascade: &mut Cascade) {
        if let Some(statistics) = statistics {
            statistics.forget(&self.atoms);
        }
        update.seed(&self.atoms, &self.targets, cascade);
    }
}

/// At most `count` windows that are represented badly, one after the other, for atoms to start again from: of every signal that at
/// the place of its largest residual, or any where all windows are signals of their own.
pub(super) fn worst_windows(
    windows_of: &LayerGeometry,
    (signals, residuals): (&[f32], &[f32]),
    count: usize,
    mut generator: ChaCha8Rng,
) -> Vec<f32> {
    let len = windows_of.signal.len();
    let (rows, columns) = (windows_of.code.height, windows_of.code.width);
    let energies = |signal: usize| {
        let residual = &residuals[signal * len..][..len];
        (0..rows * columns).map(move |place| {
            let position = [place / columns, place % columns];
            (norm(&windows(windows_of, [(residual, position)])), signal, position)
        })
    };
    let all = 0..signals.len() / len;
    // The worst first.
    let mut places: Vec<(f32, usize, [usize; 2])> = match windows_of.is_disjoint() {
        true => all.flat_map(energies).collect(),
        false => all
            .map(|signal| energies(signal).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, signal, [0, 0])))
            .collect(),
    };
    places.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // A choice among the worse half, so that two searches in a row do not seed the same.
    let half = places.len().div_ceil(2);
    places.truncate(half.max(count));
    places.shuffle(&mut generator);
    places.truncate(count);
    windows(windows_of, places.iter().map(|&(_, signal, position)| (&signals[signal * len..][..len], position)))
}
