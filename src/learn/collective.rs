//! Learning by several processes, the ranks, on one machine or many: what they tell each other.
//!
//! Every rank reads and codes its part of a batch and tells all others signals and codes. From there on each does the same with the
//! same numbers: statistics, dictionaries, re-seeding. The codes are sparse and the signals no more than a batch of them, which is less
//! than the sums over both that the update needs: those of γγᵀ alone are as many as there are pairs of atoms.
//!
//! All ranks take part in every exchange, in the same order. An exchange begins with one number of each (`Ranks::meet`), among them
//! whether a rank has failed; so one that has failed says so in the next exchange that the others begin, and all end.

use crate::error::{Error, Result};
use crate::names::IntoEnumIterator;
use crate::pursuit::{Algorithm, SignalReport, StopReason};
use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Signals that the parts of a batch are multiples of, where there are enough: some pursuits round by how many signals they are given.
const TOGETHER: usize = 16;

/// Words of each rank that are on their way at a time at most: counts of MPI are 32 bits wide.
#[cfg(feature = "mpi")]
const AT_A_TIME: usize = 1 << 22;

/// Processes that work on one thing and can exchange numbers. Every function is called by all of them, in the same order.
pub trait Collective: fmt::Debug + Send + Sync {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What every rank gives, in the order of ranks.
    fn gather(&self, own: [u64; 2]) -> Vec<[u64; 2]>;

    /// Words of all ranks, one after the other; `lengths` says how many each gives.
    fn gather_words(&self, own: &[u32], lengths: &[usize]) -> Vec<u32>;

    /// Words of the first rank, in place of those of all others.
    fn broadcast(&self, words: &mut [u32]);
}

/// The ranks that share a training: a single one, unless something else was said.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    others: Option<Arc<dyn Collective>>,
    traffic: Arc<Traffic>,
}

/// What was exchanged so far.
#[derive(Debug, Default)]
struct Traffic {
    exchanges: AtomicU64,
    words: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What was exchanged, and how long that took, waiting for other ranks included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Exchanged {
    /// Number of ranks.
    pub ranks: usize,
    /// Number of exchanges.
    pub exchanges: u64,
    /// Bytes that this rank was sent by all, itself included.
    pub bytes: u64,
    /// Seconds between the beginnings and the ends of exchanges.
    pub seconds: f64,
}

/// How things stand with a rank, as the others are told.
const WELL: u64 = 0;
const FAILED: u64 = 1;
const MISUSED: u64 = 2;

/// The first rank with which things do not stand well, as an error.
fn failure(all: &[[u64; 2]]) -> Option<Error> {
    let rank = all.iter().position(|[state, _]| *state != WELL)?;
    Some(Error::Elsewhere { rank, usage: all[rank][0] == MISUSED })
}

impl Ranks {
    /// The ranks that can be reached through `collective`.
    pub fn of(collective: Arc<dyn Collective>) -> Self {
        let others = (collective.size() > 1).then_some(collective);
        Self { others, traffic: Arc::default() }
    }

    /// All processes that a launcher of MPI, as `mpirun` or `srun`, started together; a single one where there was none.
    ///
    /// # Errors
    /// Several processes without the feature `mpi`, or of another MPI than this program was built with.
    pub fn world() -> Result<Self> {
        let Some((_, size @ 2..)) = launched() else { return Ok(Self::default()) };
        #[cfg(feature = "mpi")]
        return world::World::start(size).map(Self::of);
        #[cfg(not(feature = "mpi"))]
        {
            let expected =
                "1 with a program that was built without the feature mpi: all would train the same, into one folder";
            Err(Error::parameter("number of processes", size, expected))
        }
    }

    /// The number of this one, from 0.
    pub fn rank(&self) -> usize {
        self.others.as_ref().map_or(0, |others| others.rank())
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.others.as_ref().map_or(1, |others| others.size())
    }

    /// Whether this is the one that writes files and talks.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.others.is_none()
    }

    /// What was exchanged so far; `None` of a single rank.
    pub fn exchanged(&self) -> Option<Exchanged> {
        let [exchanges, words, nanoseconds] = [&self.traffic.exchanges, &self.traffic.words, &self.traffic.nanoseconds]
            .map(|count| count.load(Ordering::Relaxed));
        self.others.as_ref().map(|others| Exchanged {
            ranks: others.size(),
            exchanges,
            bytes: 4 * words,
            seconds: nanoseconds as f64 * 1e-9,
        })
    }

    /// The parts of `count` signals that the ranks code.
    pub(super) fn parts(&self, count: usize) -> Vec<Range<usize>> {
        let size = self.size();
        let together = if count >= TOGETHER * size { TOGETHER } else { 1 };
        let blocks = count.div_ceil(together);
        let until = |rank: usize| (rank * blocks / size * together).min(count);
        (0..size).map(|rank| until(rank)..until(rank + 1)).collect()
    }

    fn count<T>(&self, words: usize, exchange: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = exchange();
        self.traffic.exchanges.fetch_add(1, Ordering::Relaxed);
        self.traffic.words.fetch_add(words as u64, Ordering::Relaxed);
        self.traffic.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// One number of every rank.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] where one has failed; there is no exchange after that.
    pub(super) fn meet(&self, own: u64) -> Result<Vec<u64>> {
        let Some(others) = &self.others else { return Ok(vec![own]) };
        let all = self.count(4 * others.size(), || others.gather([WELL, own]));
        match failure(&all) {
            Some(error) => Err(error),
            None => Ok(all.into_iter().map(|[_, value]| value).collect()),
        }
    }

    /// Whether it is so for any rank.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub(super) fn any(&self, own: bool) -> Result<bool> {
        Ok(self.meet(own.into())?.contains(&1))
    }

    /// Refuses ranks that were given different things: what each is called, and what tells it from others. All name the same, in the same order.
    ///
    /// # Errors
    /// As [`Self::meet`]; the first thing that differs, with the rank that has another.
    pub(super) fn compare(&self, things: &[(&str, u64)]) -> Result<()> {
        for &(what, own) in things {
            let all = self.meet(own)?;
            if let Some(rank) = all.iter().position(|other| *other != all[0]) {
                let expected = "the same as of rank 0: all processes need the same flags and files";
                return Err(Error::shape(format!("{what} of rank {rank}"), expected, "others"));
            }
        }
        Ok(())
    }

    /// Words of all ranks, one after the other.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub(super) fn gather(&self, own: Vec<u32>) -> Result<Vec<u32>> {
        let lengths: Vec<usize> = self.meet(own.len() as u64)?.into_iter().map(|length| length as usize).collect();
        let Some(others) = &self.others else { return Ok(own) };
        Ok(self.count(lengths.iter().sum(), || others.gather_words(&own, &lengths)))
    }

    /// [`Self::gather`] for floats, to the last bit.
    pub(super) fn gather_floats(&self, own: Vec<f32>) -> Result<Vec<f32>> {
        if self.is_alone() {
            return Ok(own);
        }
        let own = own.into_iter().map(f32::to_bits).collect();
        Ok(self.gather(own)?.into_iter().map(f32::from_bits).collect())
    }

    /// Numbers of every rank, for each that has any.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub(super) fn gather_doubles(&self, own: &[f64]) -> Result<Vec<Vec<f64>>> {
        let words = own.iter().flat_map(|value| [value.to_bits() as u32, (value.to_bits() >> 32) as u32]);
        // Each says first how many they are.
        let own: Vec<u32> = std::iter::once(own.len() as u32).chain(words).collect();
        let all = self.gather(own)?;
        let (mut rest, mut found) = (&all[..], Vec::new());
        while let Some((&count, after)) = rest.split_first() {
            let (words, after) = after.split_at_checked(2 * count as usize).unwrap_or((after, &[]));
            let value = |&[low, high]: &[u32; 2]| f64::from_bits(u64::from(low) | u64::from(high) << 32);
            if count > 0 {
                found.push(words.as_chunks().0.iter().map(value).collect());
            }
            rest = after;
        }
        Ok(found)
    }

    /// Codes, one after the other, and reports of all ranks' signals. What is sent are the non-zeros.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub(super) fn gather_codes(
        &self,
        codes: Vec<f32>,
        reports: Vec<SignalReport>,
        len: usize,
    ) -> Result<(Vec<f32>, Vec<SignalReport>)> {
        if self.is_alone() {
            return Ok((codes, reports));
        }
        let mut words = Vec::new();
        for (code, report) in codes.chunks_exact(len).zip(&reports) {
            pack(code, report, &mut words);
        }
        let words = self.gather(words)?;
        let (mut codes, mut reports) = (Vec::new(), Vec::new());
        let mut rest = &words[..];
        while !rest.is_empty() {
            rest = unpack(rest, len, &mut codes, &mut reports).ok_or_else(|| {
                Error::shape("codes of another rank", "those of the same model", "others: do all run the same program?")
            })?;
        }
        Ok((codes, reports))
    }

    /// Sees to it that all ranks go on from the same values, and says whether any wants to stop, and whether values differed: processors of
    /// another kind round otherwise. Then the first one's are taken.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub(super) fn agree<'a>(&self, stop: bool, values: impl Iterator<Item = &'a mut [f32]>) -> Result<[bool; 2]> {
        let Some(others) = &self.others else { return Ok([stop, false]) };
        let values: Vec<&mut [f32]> = values.collect();
        let sum = values.iter().fold(0, |sum, values| checksum(sum, values));
        let all = self.meet(sum & !1 | u64::from(stop))?;
        let differ = all.iter().any(|other| (other ^ all[0]) > 1);
        if differ {
            for values in values {
                let mut words: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
                self.count(words.len(), || others.broadcast(&mut words));
                values.iter_mut().zip(words).for_each(|(value, word)| *value = f32::from_bits(word));
            }
        }
        Ok([all.iter().any(|other| other & 1 == 1), differ])
    }

    /// Ends the work on all ranks: what is a failure on one is one on all. Tells whether it is this rank that says what happened.
    ///
    /// # Errors
    /// That of `result`; [`Error::Elsewhere`] if only another rank failed.
    pub fn conclude<T>(&self, result: Result<T>) -> (Result<T>, bool) {
        let Some(others) = &self.others else { return (result, true) };
        if let Err(Error::Elsewhere { .. }) = result {
            return (result, false);
        }
        let state = match &result {
            Ok(_) => WELL,
            Err(error) if error.is_usage() => MISUSED,
            Err(_) => FAILED,
        };
        let all = others.gather([state, 0]);
        match failure(&all) {
            None => (result, self.is_first()),
            Some(Error::Elsewhere { rank, .. }) if result.is_err() => (result, rank == self.rank()),
            Some(error) => (Err(error), false),
        }
    }
}

/// The number of this process and how many a launcher of MPI started together with it, as the environment tells; `None` without one.
pub fn launched() -> Option<(usize, usize)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let known = [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
        ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ];
    known.into_iter().find_map(|(rank, size)| Some((number(rank)?, number(size)?)))
}

/// What tells values from others.
fn checksum(start: u64, values: &[f32]) -> u64 {
    values.iter().fold(start ^ 0x9e37_79b9_7f4a_7c15, |sum, value| {
        (sum.rotate_left(5) ^ u64::from(value.to_bits())).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// Words of a report.
const REPORT: usize = 8;

/// Appends a signal's code and report.
fn pack(code: &[f32], report: &SignalReport, words: &mut Vec<u32>) {
    let SignalReport { lambda, iterations, objective, relative_gap, data_term, nonzeros, stop, finished_by } = report;
    let whole = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let finished_by = finished_by.and_then(|by| Algorithm::iter().position(|algorithm| algorithm == by));
    words.extend([*lambda, *objective, *relative_gap, *data_term].map(f32::to_bits));
    words.extend([
        whole(*iterations),
        whole(*nonzeros),
        stop.number().into(),
        whole(finished_by.map_or(0, |by| by + 1)),
    ]);
    let count = words.len();
    words.push(0);
    for (index, value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        words.extend([index as u32, value.to_bits()]);
    }
    words[count] = ((words.len() - count - 1) / 2) as u32;
}

/// The inverse of [`pack`]: what is left of the words, `None` where they are none of these.
fn unpack<'a>(
    words: &'a [u32],
    len: usize,
    codes: &mut Vec<f32>,
    reports: &mut Vec<SignalReport>,
) -> Option<&'a [u32]> {
    let (report, rest) = words.split_first_chunk::<REPORT>()?;
    let [lambda, objective, relative_gap, data_term, iterations, nonzeros, stop, finished_by] = *report;
    let [lambda, objective, relative_gap, data_term] = [lambda, objective, relative_gap, data_term].map(f32::from_bits);
    reports.push(SignalReport {
        lambda,
        iterations: iterations as usize,
        objective,
        relative_gap,
        data_term,
        nonzeros: nonzeros as usize,
        stop: StopReason::iter().find(|reason| u32::from(reason.number()) == stop)?,
        finished_by: match finished_by {
            0 => None,
            number => Some(Algorithm::iter().nth(number as usize - 1)?),
        },
    });
    let (&count, rest) = rest.split_first()?;
    let (entries, rest) = rest.split_at_checked(2 * count as usize)?;
    let start = codes.len();
    codes.resize(start + len, 0.0);
    for &[index, value] in entries.as_chunks().0 {
        *codes[start..].get_mut(index as usize)? = f32::from_bits(value);
    }
    Some(rest)
}

#[cfg(feature = "mpi")]
mod world {
    //! Ranks that are processes of MPI.

    use super::{AT_A_TIME, Collective};
    use crate::error::{Error, Result};
    use mpi::Threading;
    use mpi::datatype::PartitionMut;
    use mpi::environment::Universe;
    use mpi::topology::{Communicator, SimpleCommunicator};
    use mpi::traits::{CommunicatorCollectives, Root};
    use std::sync::Arc;

    pub(super) struct World {
        universe: Universe,
    }

    impl std::fmt::Debug for World {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "rank {} of {}", self.rank(), self.size())
        }
    }

    impl World {
        /// Joins the other processes, of which the launcher started `size`.
        pub fn start(size: usize) -> Result<Arc<dyn Collective>> {
            // Only the thread that trains calls MPI.
            let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
                .ok_or_else(|| Error::parameter("MPI", "running", "a process that has not begun with MPI before"))?;
            let world = Self { universe };
            match world.size() == size {
                true => Ok(Arc::new(world)),
                false => {
                    let expected = format!(
                        "{size}, as many as were started: is the launcher that of the MPI this program was built with?"
                    );
                    Err(Error::parameter("number of processes", world.size(), expected))
                }
            }
        }

        fn all(&self) -> SimpleCommunicator {
            self.universe.world()
        }
    }

    impl Drop for World {
        /// The end of MPI waits for all: one that panics must not come there.
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.all().abort(101);
            }
        }
    }

    impl Collective for World {
        fn rank(&self) -> usize {
            self.all().rank() as usize
        }

        fn size(&self) -> usize {
            self.all().size() as usize
        }

        fn gather(&self, own: [u64; 2]) -> Vec<[u64; 2]> {
            let mut all = vec![0; 2 * self.size()];
            self.all().all_gather_into(&own[..], &mut all[..]);
            all.as_chunks().0.to_vec()
        }

        fn gather_words(&self, own: &[u32], lengths: &[usize]) -> Vec<u32> {
            let starts: Vec<usize> = lengths
                .iter()
                .scan(0, |end, length| {
                    *end += length;
                    Some(*end - length)
                })
                .collect();
            let mut all = vec![0; lengths.iter().sum()];
            let longest = lengths.iter().copied().max().unwrap_or(0);
            // As many as fit at a time, whatever the number of ranks.
            let step = (AT_A_TIME / lengths.len().div_ceil(256)).max(1);
            let mut received = Vec::new();
            for from in (0..longest).step_by(step) {
                let part = |length: usize| from.min(length)..(from + step).min(length);
                let counts: Vec<i32> = lengths.iter().map(|&length| part(length).len() as i32).collect();
                let places: Vec<i32> = counts
                    .iter()
                    .scan(0, |end, count| {
                        *end += count;
                        Some(*end - count)
                    })
                    .collect();
                received.clear();
                received.resize(counts.iter().sum::<i32>() as usize, 0u32);
                {
                    let mut target = PartitionMut::new(&mut received[..], &counts[..], &places[..]);
                    self.all().all_gather_varcount_into(&own[part(own.len())], &mut target);
                }
                for (rank, (&start, &length)) in starts.iter().zip(lengths).enumerate() {
                    let part = part(length);
                    let source = &received[places[rank] as usize..][..part.len()];
                    all[start + part.start..start + part.end].copy_from_slice(source);
                }
            }
            all
        }

        fn broadcast(&self, words: &mut [u32]) {
            for words in words.chunks_mut(AT_A_TIME) {
                self.all().process_at_rank(0).broadcast_into(words);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::config::{TrainConfig, UpdateRule};
    use super::super::learner::DictionaryLearner;
    use super::super::testing::{bits, device};
    use super::*;
    use crate::data::{DataConfig, Dataset, Source, open};
    use crate::learn::{Outcome, Record, Run, TrainingState};
    use crate::model::preset::Preset;
    use std::sync::{Barrier, Mutex, PoisonError};

    /// Ranks that are threads.
    #[derive(Debug)]
    struct Thread {
        rank: usize,
        table: Arc<Table>,
    }

    #[derive(Debug)]
    struct Table {
        barrier: Barrier,
        given: Mutex<Vec<Vec<u64>>>,
    }

    impl Thread {
        fn exchange(&self, own: Vec<u64>) -> Vec<Vec<u64>> {
            let given = || self.table.given.lock().unwrap_or_else(PoisonError::into_inner);
            given()[self.rank] = own;
            self.table.barrier.wait();
            let all = given().clone();
            self.table.barrier.wait();
            all
        }
    }

    impl Collective for Thread {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.table.given.lock().unwrap().len()
        }

        fn gather(&self, own: [u64; 2]) -> Vec<[u64; 2]> {
            self.exchange(own.to_vec()).into_iter().map(|values| [values[0], values[1]]).collect()
        }

        fn gather_words(&self, own: &[u32], lengths: &[usize]) -> Vec<u32> {
            assert_eq!(own.len(), lengths[self.rank]);
            let all = self.exchange(own.iter().map(|&word| word.into()).collect());
            assert!(all.iter().zip(lengths).all(|(words, length)| words.len() == *length));
            all.concat().into_iter().map(|word| word as u32).collect()
        }

        fn broadcast(&self, words: &mut [u32]) {
            let all = self.exchange(words.iter().map(|&word| word.into()).collect());
            words.iter_mut().zip(&all[0]).for_each(|(word, first)| *word = *first as u32);
        }
    }

    /// What every one of so many ranks comes to.
    pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        let table = Arc::new(Table { barrier: Barrier::new(size), given: Mutex::new(vec![Vec::new(); size]) });
        std::thread::scope(|scope| {
            let work = &work;
            let start = |rank| {
                let ranks = Ranks::of(Arc::new(Thread { rank, table: table.clone() }));
                scope.spawn(move || work(ranks))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn report(index: usize) -> SignalReport {
        SignalReport {
            lambda: 0.1 * index as f32,
            iterations: index,
            objective: f32::NAN,
            relative_gap: 0.3,
            data_term: -0.0,
            nonzeros: 1 << index,
            stop: StopReason::iter().nth(index % StopReason::iter().count()).unwrap(),
            finished_by: Algorithm::iter().nth(index),
        }
    }

    /// All ranks learn which has something else, and of what; what is the same passes.
    #[test]
    fn different_things_are_refused_on_all_ranks() {
        let same = on_ranks(3, |ranks| ranks.compare(&[("settings", 7), ("signals", u64::MAX)]).is_ok());
        assert_eq!(same, [true; 3]);
        let told = on_ranks(3, |ranks| {
            let other = u64::from(ranks.rank() == 2);
            ranks.compare(&[("settings", 7), ("signals", other)]).unwrap_err().to_string()
        });
        assert!(told.iter().all(|told| told.starts_with("signals of rank 2: ")), "{told:?}");
    }

    #[test]
    fn parts_cover_a_batch_in_order() {
        for size in [2, 3, 4, 7] {
            let parts = on_ranks(size, |ranks| [0, 1, 5, 31, 100, 256, 1001].map(|count| (count, ranks.parts(count))));
            for (count, parts) in &parts[size - 1] {
                assert_eq!((parts.len(), parts[0].start, parts[size - 1].end), (size, 0, *count));
                assert!(parts.array_windows().all(|[a, b]| a.end == b.start));
                let lengths = parts.iter().map(Range::len);
                let apart = lengths.clone().max().unwrap() - lengths.min().unwrap();
                assert!(apart <= if *count >= TOGETHER * size { TOGETHER + TOGETHER - 1 } else { 1 }, "{count} {size}");
            }
        }
        assert_eq!(Ranks::default().parts(7), std::iter::once(0..7).collect::<Vec<_>>());
    }

    #[test]
    fn codes_and_reports_are_told_to_the_last_bit() {
        let code = |index: usize| [0.0, index as f32, 0.0, f32::MIN_POSITIVE * 0.5, -1.0 / (index + 1) as f32];
        // The first rank has none.
        let found = on_ranks(3, |ranks| {
            let own: Vec<usize> = (0..2 * ranks.rank()).map(|index| index + 2 * ranks.rank()).collect();
            let codes = own.iter().flat_map(|&index| code(index)).collect();
            ranks.gather_codes(codes, own.into_iter().map(report).collect(), 5).unwrap()
        });
        let expected: Vec<f32> = [2, 3, 4, 5, 6, 7].into_iter().flat_map(code).collect();
        for (codes, reports) in found {
            assert_eq!(bits(&codes), bits(&expected));
            let expected: Vec<_> = [2, 3, 4, 5, 6, 7].map(report).into();
            assert_eq!(format!("{reports:?}"), format!("{expected:?}"));
            assert!(reports[0].data_term.is_sign_negative());
        }
        assert!(unpack(&[1, 2, 3], 5, &mut Vec::new(), &mut Vec::new()).is_none());
    }

    #[test]
    fn all_end_when_one_fails() {
        for failing in 0..3 {
            let ends = on_ranks(3, |ranks| {
                let work = || match ranks.rank() == failing {
                    true => Err(Error::Download("broken".into())),
                    false => ranks.gather(vec![1]).and_then(|_| ranks.any(true)),
                };
                let (result, says) = ranks.conclude(work());
                (result.unwrap_err().to_string(), says)
            });
            for (rank, (error, says)) in ends.iter().enumerate() {
                assert_eq!(*says, rank == failing);
                assert_eq!(error == "broken", rank == failing, "{error}");
            }
        }
        // Of several that fail at once the first one speaks; after success too only one does.
        let fail = |ranks: Ranks| ranks.conclude::<()>(Err(Error::Download("broken".into()))).1;
        assert_eq!(on_ranks(3, fail), [true, false, false]);
        assert_eq!(on_ranks(3, |ranks| ranks.conclude(Ok(())).1), [true, false, false]);
        // One fails where the others are done.
        let last = |ranks: Ranks| {
            let own = if ranks.is_first() { Err(Error::Download("full".into())) } else { Ok(()) };
            ranks.conclude(own).0.unwrap_err().to_string()
        };
        assert_eq!(on_ranks(2, last), ["full".to_owned(), "rank 0 has failed".to_owned()]);
    }

    #[test]
    fn filters_of_the_first_rank_are_taken_where_ranks_differ() {
        for differs in [None, Some(0), Some(1), Some(2)] {
            let found = on_ranks(3, |ranks| {
                let mut filters = [vec![0.0; 4], vec![0.0; 3]];
                if differs == Some(ranks.rank()) {
                    filters[1][2] = 1.0 + ranks.rank() as f32;
                }
                let [stop, _] = ranks.agree(ranks.rank() == 1, filters.iter_mut().map(Vec::as_mut_slice)).unwrap();
                (stop, filters[1].clone())
            });
            let expected = if differs == Some(0) { 1.0 } else { 0.0 };
            assert!(
                found.iter().all(|(stop, values)| *stop && *values == [0.0, 0.0, expected]),
                "{differs:?} {found:?}"
            );
        }
        assert!(
            on_ranks(2, |ranks| ranks.agree(false, std::iter::empty()).unwrap()).iter().all(|said| *said == [false; 2])
        );
    }

    fn config(preset: Preset, update: UpdateRule) -> (TrainConfig, Dataset) {
        let mut config = TrainConfig::preset(preset);
        config.data = DataConfig { count: Some(180), ..config.data };
        config.learning.update = update;
        config.learning.epochs = 1;
        config.learning.batch_size = 50;
        config.learning.reseed_every = 2;
        let data = open(&config.data).unwrap();
        (config, data)
    }

    fn filters(state: &TrainingState) -> Vec<f32> {
        state.model().unwrap().filters().into_iter().flat_map(crate::kernels::sparse::to_host).collect()
    }

    /// Several ranks come to the model of one, to rounding, by both rules; all of them to the very same.
    #[test]
    fn ranks_learn_what_one_does() {
        for (update, size) in [(UpdateRule::Pursuit, 3), (UpdateRule::Gradient, 2)] {
            let (mut config, data) = config(Preset::Small, update);
            config.learning.gradient.repeats = 1;
            let start = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
            let learn = |ranks: Ranks| {
                let mut learner = start.clone();
                learner.state.ranks = ranks;
                let mut sums = Vec::new();
                for _ in 0..2 {
                    sums.push(learner.step(&*data.train).unwrap().summary());
                }
                // Fewer signals than ranks are left over in the end.
                let few = crate::data::first(data.test.clone(), 1);
                let test = learner.evaluate(&*few, |_| true).unwrap().unwrap();
                (filters(&learner), sums, test)
            };
            let (expected, sums, test) = learn(Ranks::default());
            let found = on_ranks(size, learn);
            for (values, own_sums, own_test) in &found {
                assert_eq!(bits(values), bits(&found[0].0));
                let apart = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-4, "{apart}");
                for (own, one) in own_sums.iter().chain([own_test]).zip(sums.iter().chain([&test])) {
                    assert_eq!((own.signals, own.convergence.of), (one.signals, one.convergence.of));
                    assert!((own.objective / one.objective - 1.0).abs() < 1e-4);
                    assert!(own.nonzeros.iter().zip(&one.nonzeros).all(|(a, b)| (a - b).abs() <= 0.01 * b));
                    let close = |a: Option<f64>, b: Option<f64>| a.zip(b).is_none_or(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(close(own.fvu, one.fvu) && close(own.hoyer, one.hoyer), "{own:?} {one:?}");
                }
            }
        }
    }

    struct Unseen;

    impl crate::learn::Observer<Record, TrainingState> for Unseen {
        fn record(&mut self, _: &Record, _: &TrainingState) -> Result<()> {
            Ok(())
        }
    }

    /// A run that one of the ranks wants to stop, and that is resumed, is the same to the last bit as one that was not, and as written by
    /// one rank only.
    #[test]
    fn a_run_of_ranks_is_stopped_by_any_and_resumed() {
        let (mut config, data) = config(Preset::Small, UpdateRule::Pursuit);
        config.learning.epochs = 2;
        let folder = tempfile::tempdir().unwrap();
        let train = |ranks: Ranks, name: &str, resume: bool, stop: &dyn Fn() -> bool| {
            let folder = folder.path().join(name);
            let mut run = match resume {
                true => Run::resume_on(&folder, &config, &data, &device(), ranks).unwrap(),
                false => Run::create_on(&folder, &config, None, &data, &device(), &mut Unseen, ranks).unwrap(),
            };
            let outcome = run.train(&data, stop, &mut Unseen).unwrap();
            (outcome, run.state().steps_done(), bits(&filters(run.state())))
        };
        let never = || false;
        let whole = on_ranks(2, |ranks| train(ranks, "whole", false, &never));
        assert!(whole.iter().all(|(outcome, ..)| *outcome == Outcome::Finished) && whole[0] == whole[1]);
        let stopped = on_ranks(2, |ranks| {
            let asked = AtomicU64::new(0);
            let last = ranks.rank() == 1;
            let stop = || last && asked.fetch_add(1, Ordering::Relaxed) > 3;
            train(ranks, "parts", false, &stop)
        });
        assert!(stopped.iter().all(|(outcome, steps, _)| *outcome == Outcome::Interrupted && *steps < 8 && *steps > 0));
        assert_eq!(stopped[0], stopped[1]);
        let resumed = on_ranks(2, |ranks| train(ranks, "parts", true, &never));
        assert_eq!(resumed, whole);
        let read = |name: &str, file: &str| std::fs::read(folder.path().join(name).join(file)).unwrap();
        assert_eq!(read("parts", "model.safetensors"), read("whole", "model.safetensors"));
        let lines = |name: &str| String::from_utf8(read(name, "metrics.jsonl")).unwrap().lines().count();
        assert_eq!([lines("parts"), lines("whole")], [whole[0].1 + 2; 2]);
    }

    /// Signals of which one cannot be read.
    struct Broken(Arc<dyn Source>, usize);

    impl Source for Broken {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn shape(&self) -> crate::geometry::SignalShape {
            self.0.shape()
        }

        fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
            match indices.contains(&self.1) {
                true => Err(Error::Download("unreadable".into())),
                false => self.0.read(indices, out),
            }
        }

        fn describe(&self) -> String {
            self.0.describe()
        }
    }

    #[test]
    fn a_signal_that_one_rank_cannot_read_ends_all() {
        let (config, data) = config(Preset::Small, UpdateRule::Pursuit);
        let start = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
        let order = start.clone().state.order.indices(0, 0..50);
        let ends = on_ranks(2, |ranks| {
            let mut learner = start.clone();
            learner.state.ranks = ranks.clone();
            let broken = Broken(data.train.clone(), order[40]);
            let (result, says) = ranks.conclude(learner.step(&broken));
            (result.unwrap_err().to_string(), says)
        });
        assert_eq!(ends, [("rank 1 has failed".to_owned(), false), ("unreadable".to_owned(), true)]);
    }
}
