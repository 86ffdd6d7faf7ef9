//! What the axes of an array mean.

use crate::geometry::SignalShape;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the signals of an array are, where its rank alone does not tell.
///
/// | layout | arrays | signals |
/// |---|---|---|
/// | `vectors` | `[d]` | one vector, d×1×1 |
/// | | `[n, …]` | n vectors; what a row holds is flattened, the last index running fastest: `[n, h, w]` gives (h·w)×1×1 |
/// | `tokens` | `[…, d]` | vectors along the last axis, d×1×1, counted by all others: `[batch, sequence, d]` gives batch·sequence of them |
/// | `time` | `[t]` | one signal in time, 1×1×t |
/// | | `[n, t]` | n of them, 1×1×t |
/// | | `[n, c, t]` or `[n, c, 1, t]` | n of c channels, c×1×t |
/// | `images` | `[h, w]` | one image, 1×h×w |
/// | | `[n, h, w]` | n images, 1×h×w |
/// | | `[n, c, h, w]` | n images of c channels, c×h×w |
/// | `maps` | `[c, h, w]` | one feature map of c channels, c×h×w |
/// | | `[n, c, h, w]` | n of them |
/// | `channels-last` | `[h, w, c]` | one image of c channels, c×h×w |
/// | | `[n, h, w, c]` | n of them |
/// | `time-channels-last` | `[t, c]` | one signal in time of c channels, c×1×t |
/// | | `[n, t, c]` | n of them |
///
/// Without a layout `[d]` and `[n, d]` are vectors, `[n, h, w]` and `[n, c, h, w]` images; arrays whose last axis looks like channels of
/// colour are refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Layout {
    /// Every row of an array, and every image, is flattened into a vector: d channels of one value.
    Vectors,
    /// Vectors along the last axis of an array, whatever its other axes, as the activations of a transformer lie.
    Tokens,
    /// Signals in time: one row of samples a channel.
    Time,
    /// Images.
    Images,
    /// Feature maps: channels of images.
    Maps,
    /// Images whose channels are the last axis, as most image libraries of Python have them.
    ChannelsLast,
    /// Signals in time whose channels are the last axis, as tables of measurements are.
    TimeChannelsLast,
}

/// Most axes of an array of signals.
pub(super) const MAX_RANK: usize = 8;

/// What one axis of an array runs over within a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Channels, or what is flattened into them.
    Channels,
    Rows,
    Columns,
}

/// How the axes of an array make signals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// The first axes, which count signals.
    counted: usize,
    /// What the others are.
    roles: Vec<Role>,
    /// Shape of every signal.
    pub shape: SignalShape,
}

impl View {
    /// The view of an array of those extents, or what arrays were expected.
    pub fn of(extents: &[usize], layout: Option<Layout>) -> Result<Self, &'static str> {
        use Layout::{ChannelsLast, Images, Maps, Time, TimeChannelsLast, Tokens, Vectors};
        use Role::{Channels, Columns, Rows};
        let rank = extents.len();
        let (counted, roles) = match (layout, rank) {
            (None | Some(Vectors), 1) => (0, vec![Channels]),
            (None, 2) => (1, vec![Channels]),
            (Some(Vectors), 2..=MAX_RANK) => (1, vec![Channels; rank - 1]),
            (Some(Tokens), 1..=MAX_RANK) => (rank - 1, vec![Channels]),
            (Some(Time), 1) => (0, vec![Columns]),
            (Some(Time), 2) => (1, vec![Columns]),
            (Some(Time), 3) => (1, vec![Channels, Columns]),
            (Some(Time), 4) if extents[2] == 1 => (1, vec![Channels, Rows, Columns]),
            (Some(Images), 2) => (0, vec![Rows, Columns]),
            (None, 3 | 4) if looks_channels_last(extents) => return Err(CHANNELS_LAST),
            (None | Some(Images), 3) => (1, vec![Rows, Columns]),
            (Some(Maps), 3) => (0, vec![Channels, Rows, Columns]),
            (None | Some(Images | Maps), 4) => (1, vec![Channels, Rows, Columns]),
            (Some(ChannelsLast), 3) => (0, vec![Rows, Columns, Channels]),
            (Some(ChannelsLast), 4) => (1, vec![Rows, Columns, Channels]),
            (Some(TimeChannelsLast), 2) => (0, vec![Columns, Channels]),
            (Some(TimeChannelsLast), 3) => (1, vec![Columns, Channels]),
            _ => {
                return Err(match layout {
                    None => {
                        "an array [values], [count, values], [count, height, width] or [count, channels, height, width]"
                    }
                    Some(Vectors) => "an array [values] or [count, …] of at most 8 extents for `layout` vectors",
                    Some(Tokens) => "an array […, values] of at most 8 extents for `layout` tokens",
                    Some(Time) => {
                        "an array [time], [count, time], [count, channels, time] or [count, channels, 1, time] for `layout` time"
                    }
                    Some(Images) => {
                        "an array [height, width], [count, height, width] or [count, channels, height, width] for \
                         `layout` images"
                    }
                    Some(Maps) => {
                        "an array [channels, height, width] or [count, channels, height, width] for `layout` maps"
                    }
                    Some(ChannelsLast) => {
                        "an array [height, width, channels] or [count, height, width, channels] for `layout` channels-last"
                    }
                    Some(TimeChannelsLast) => {
                        "an array [time, channels] or [count, time, channels] for `layout` time-channels-last"
                    }
                });
            }
        };
        Ok(Self::new(counted, roles, extents))
    }

    /// Vectors along the last axis; all other axes count them.
    pub fn of_vectors(extents: &[usize]) -> Self {
        Self::new(extents.len() - 1, vec![Role::Channels], extents)
    }

    fn new(counted: usize, roles: Vec<Role>, extents: &[usize]) -> Self {
        let along = |wanted| -> usize {
            let axes = extents[counted..].iter().zip(&roles);
            axes.filter(|(_, role)| **role == wanted).map(|(extent, _)| extent).product()
        };
        let shape = SignalShape::new(along(Role::Channels), along(Role::Rows), along(Role::Columns));
        Self { counted, roles, shape }
    }

    /// Brings the values of a block, which lie as in the array, into the order of a signal: channel after channel.
    pub fn in_order(&self, values: &mut [f32]) {
        if self.roles.last() != Some(&Role::Channels) || self.shape.channels == 1 || self.shape.is_single_position() {
            return;
        }
        let channels = self.shape.channels;
        let in_order = transposed(values, values.len() / channels, channels);
        values.copy_from_slice(&in_order);
    }

    /// Whether an axis, or several that are flattened, is that of channels.
    pub fn has_channel_axis(&self) -> bool {
        self.roles.contains(&Role::Channels)
    }

    /// Signals in an array of those extents.
    pub fn count(&self, extents: &[usize]) -> usize {
        extents[..self.counted].iter().product()
    }

    /// The extents that all shards of one set share.
    pub fn trailing<'a>(&self, extents: &'a [usize]) -> &'a [usize] {
        &extents[self.counted..]
    }

    /// The block of the array that a window (top, left, height, width) of a signal is: where it begins and how far it goes.
    pub fn block(&self, extents: &[usize], index: usize, window: [usize; 4]) -> [[usize; MAX_RANK]; 2] {
        let [top, left, height, width] = window;
        let (mut start, mut block) = ([0; MAX_RANK], [1; MAX_RANK]);
        let mut rest = index;
        for axis in (0..self.counted).rev() {
            start[axis] = rest % extents[axis];
            rest /= extents[axis];
        }
        for (axis, role) in self.roles.iter().enumerate().map(|(axis, role)| (axis + self.counted, role)) {
            (start[axis], block[axis]) = match role {
                Role::Channels => (0, extents[axis]),
                Role::Rows => (top, height),
                Role::Columns => (left, width),
            };
        }
        [start, block]
    }
}

/// The transpose of a matrix of so many rows and columns.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// The axes of so many signals as an array that reads back as them by the same layout, and whether their channels are the last: `[n, d]` of
/// vectors, `[n, channels, height, width]` of others where no layout says otherwise, without the channels where the array that they come from
/// has none and nothing else is made of it then. Of those with channels such whose last axis looks like channels read back by the layout `maps`.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub(crate) fn axes(
    layout: Option<Layout>,
    signal: SignalShape,
    count: usize,
    channel_axis: bool,
) -> (Vec<usize>, bool) {
    let SignalShape { channels, height, width } = signal;
    match layout {
        Some(Layout::ChannelsLast) => (vec![count, height, width, channels], true),
        Some(Layout::TimeChannelsLast) if height == 1 => (vec![count, width, channels], true),
        Some(Layout::Time) if height == 1 && channels == 1 && !channel_axis => (vec![count, width], false),
        Some(Layout::Time) if height == 1 => (vec![count, channels, width], false),
        _ if signal.is_single_position() && !matches!(layout, Some(Layout::Images | Layout::Maps)) => {
            (vec![count, channels], false)
        }
        // Such as look like something else stay with their axis.
        _ if channels == 1 && !channel_axis && (layout.is_some() || !looks_channels_last(&[count, height, width])) => {
            (vec![count, height, width], false)
        }
        _ => (signal.batched(count).to_vec(), false),
    }
}

/// What is expected of arrays that [`looks_channels_last`] is true of.
const CHANNELS_LAST: &str = "a `layout`, since the last axis looks like channels: channels-last for images [.., height, width, channels], \
     time-channels-last for signals [.., time, channels], else images, time or vectors";

/// Whether the last axis of an array of images looks like channels of colour, a grey one among them: in front of it there would be images
/// of hardly any columns.
pub(crate) fn looks_channels_last(extents: &[usize]) -> bool {
    match extents[extents.len().saturating_sub(3)..] {
        [rows, columns, channels] => rows > 4 && columns > 4 && matches!(channels, 1 | 3 | 4),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_and_rank() {
        use Layout::{Images, Maps, Time, Vectors};
        let view = |layout, extents: &[usize]| {
            let view = View::of(extents, layout).ok()?;
            let SignalShape { channels, height, width } = view.shape;
            Some((view.count(extents), [channels, height, width]))
        };
        for (layout, expected) in [
            (None, [Some((1, [2, 1, 1])), Some((2, [3, 1, 1])), Some((2, [1, 3, 4])), Some((2, [3, 4, 5]))]),
            (Some(Vectors), [Some((1, [2, 1, 1])), Some((2, [3, 1, 1])), Some((2, [12, 1, 1])), Some((2, [60, 1, 1]))]),
            (Some(Time), [Some((1, [1, 1, 2])), Some((2, [1, 1, 3])), Some((2, [3, 1, 4])), None]),
            (Some(Images), [None, Some((1, [1, 2, 3])), Some((2, [1, 3, 4])), Some((2, [3, 4, 5]))]),
            (Some(Maps), [None, None, Some((1, [2, 3, 4])), Some((2, [3, 4, 5]))]),
        ] {
            for (rank, expected) in (1..).zip(expected) {
                assert_eq!(view(layout, &[2, 3, 4, 5][..rank]), expected, "{layout:?} {rank}");
            }
            assert_eq!(view(layout, &[]), None);
            assert_eq!(view(layout, &[1; 5]).is_some(), layout == Some(Vectors));
            assert_eq!(view(layout, &[1; 9]), None);
        }
    }

    #[test]
    fn channels_may_be_last() {
        use Layout::{ChannelsLast, Images, TimeChannelsLast};
        let view = View::of(&[5, 8, 9, 3], Some(ChannelsLast)).unwrap();
        assert_eq!((view.count(&[5, 8, 9, 3]), view.shape), (5, SignalShape::new(3, 8, 9)));
        let [start, block] = view.block(&[5, 8, 9, 3], 2, [1, 2, 2, 1]);
        assert_eq!((&start[..4], &block[..4]), (&[2, 1, 2, 0][..], &[1, 2, 1, 3][..]));
        let mut values = [0.0, 10.0, 20.0, 1.0, 11.0, 21.0];
        view.in_order(&mut values);
        assert_eq!(values, [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
        let view = View::of(&[50, 6], Some(TimeChannelsLast)).unwrap();
        assert_eq!((view.count(&[50, 6]), view.shape), (1, SignalShape::new(6, 1, 50)));
        // What is written is read as the same signals.
        for (layout, signal) in [
            (None, SignalShape::new(1, 28, 28)),
            (None, SignalShape::new(1, 8, 3)),
            (Some(Images), SignalShape::new(1, 8, 3)),
            (Some(Layout::Time), SignalShape::new(1, 1, 9)),
            (Some(ChannelsLast), SignalShape::new(3, 8, 9)),
            (Some(TimeChannelsLast), SignalShape::new(3, 1, 9)),
            (Some(Layout::Time), SignalShape::new(3, 1, 9)),
            (None, SignalShape::new(7, 1, 1)),
            (Some(Layout::Tokens), SignalShape::new(7, 1, 1)),
            (None, SignalShape::new(1, 8, 9)),
            (Some(Layout::Maps), SignalShape::new(3, 1, 1)),
            (Some(Images), SignalShape::new(3, 1, 1)),
        ] {
            let (bare, _) = axes(layout, signal, 9, false);
            let view = View::of(&bare, layout).unwrap();
            assert_eq!((view.count(&bare), view.shape), (9, signal), "{layout:?} {bare:?}");
            let (extents, last) = axes(layout, signal, 4, true);
            let view = View::of(&extents, layout).unwrap();
            assert_eq!((view.count(&extents), view.shape), (4, signal), "{layout:?}");
            let values: Vec<f32> = (0..signal.len()).map(|value| value as f32).collect();
            let mut written = if last {
                transposed(&values, signal.channels, signal.len() / signal.channels)
            } else {
                values.clone()
            };
            view.in_order(&mut written);
            assert_eq!(written, values, "{layout:?}");
        }
        // What looks so is not taken for something else without a word.
        for extents in [&[5, 8, 9, 3][..], &[8, 9, 4], &[7, 28, 28, 1]] {
            assert!(View::of(extents, None).is_err(), "{extents:?}");
            assert!(View::of(extents, Some(Images)).is_ok());
        }
        for extents in [&[7, 3, 8, 9][..], &[2, 300, 1, 1], &[7, 28, 28], &[100, 2, 4], &[9, 1, 3, 3]] {
            assert!(View::of(extents, None).is_ok(), "{extents:?}");
        }
    }

    #[test]
    fn blocks_of_windows() {
        let extents = [5, 2, 3, 4];
        let view = View::of(&extents, None).unwrap();
        let [start, block] = view.block(&extents, 3, [1, 2, 2, 1]);
        assert_eq!((&start[..4], &block[..4]), (&[3, 0, 1, 2][..], &[1, 2, 2, 1][..]));
        let view = View::of_vectors(&extents);
        assert_eq!((view.count(&extents), view.shape), (30, SignalShape::new(4, 1, 1)));
        let [start, block] = view.block(&extents, 23, [0, 0, 1, 1]);
        assert_eq!((&start[..4], &block[..4]), (&[3, 1, 2, 0][..], &[1, 1, 1, 4][..]));
    }
}
