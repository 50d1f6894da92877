//! Pages of keys and values: which sequences hold them, and which are cached for their content.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::Digest;

#[derive(Clone, Debug, Default)]
struct Page {
    /// Sequences that hold it.
    holders: u32,
    /// Identifies its content (see [`crate::prefix`]), once it is full and known to be finite.
    key: Option<Digest>,
    /// When it was last released.
    stamp: u64,
}

/// The pages of a pipeline. A page is free, held by sequences, or cached for its content. Where
/// free pages run out, the least recently used cached page is reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct PagePool {
    pages: Vec<Page>,
    free: Vec<u32>,
    /// Pages by content.
    index: BTreeMap<Digest, u32>,
    /// Pages that nobody holds, cached for their content, with their stamps.
    idle: BTreeSet<(u64, u32)>,
    clock: u64,
}

impl PagePool {
    /// `count` free pages.
    pub(crate) fn new(count: u32) -> Self {
        Self {
            pages: vec![Page::default(); count as usize],
            free: (0..count).rev().collect(),
            ..Self::default()
        }
    }

    /// How many pages there are.
    pub(crate) fn count(&self) -> usize {
        self.pages.len()
    }

    /// How many pages can be taken.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// How many pages are cached for their content.
    pub(crate) fn cached(&self) -> usize {
        self.idle.len()
    }

    /// Takes `count` pages, or none where there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if self.available() < count {
            return None;
        }
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let page = match self.free.pop() {
                Some(page) => page,
                None => self.evict()?,
            };
            self.pages[page as usize].holders = 1;
            taken.push(page);
        }
        Some(taken)
    }

    /// Takes the least recently used cached page.
    fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.idle.pop_first()?;
        if let Some(key) = self.pages[page as usize].key.take() {
            self.index.remove(&key);
        }
        Some(page)
    }

    /// Adds a holder to the page with the content `key`, if there is one.
    pub(crate) fn share(&mut self, key: &Digest) -> Option<u32> {
        let number = *self.index.get(key)?;
        let page = &mut self.pages[number as usize];
        if page.holders == 0 {
            self.idle.remove(&(page.stamp, number));
        }
        page.holders += 1;
        Some(number)
    }

    /// Registers a held page by its content. If another page has the same content, that one stays.
    pub(crate) fn publish(&mut self, number: u32, key: Digest) {
        let page = &mut self.pages[number as usize];
        if page.key.is_none() && !self.index.contains_key(&key) {
            page.key = Some(key);
            self.index.insert(key, number);
        }
    }

    /// Makes sure that the content of a page is not used again.
    pub(crate) fn purge(&mut self, number: u32) {
        if let Some(key) = self.pages[number as usize].key.take() {
            self.index.remove(&key);
        }
    }

    /// Releases the pages of a sequence, the last one first, so that a page is not reused before
    /// those that follow it.
    pub(crate) fn release(&mut self, numbers: &[u32]) {
        for &number in numbers.iter().rev() {
            self.clock += 1;
            let page = &mut self.pages[number as usize];
            page.holders -= 1;
            if page.holders > 0 {
                continue;
            }
            page.stamp = self.clock;
            if page.key.is_some() {
                self.idle.insert((page.stamp, number));
            } else {
                self.free.push(number);
            }
        }
    }

    /// Checks that every page is in one place, given how many sequences hold each.
    #[cfg(test)]
    pub(crate) fn check(&self, holders: &BTreeMap<u32, u32>) {
        let free: BTreeSet<u32> = self.free.iter().copied().collect();
        let idle: BTreeSet<u32> = self.idle.iter().map(|(_, page)| *page).collect();
        assert_eq!(free.len(), self.free.len(), "a page is free twice");
        assert_eq!(idle.len(), self.idle.len(), "a page is idle twice");
        let mut keys = 0;
        for (number, page) in (0..).zip(&self.pages) {
            let held = holders.get(&number).copied().unwrap_or(0);
            assert_eq!(page.holders, held, "page {number}");
            assert_eq!(free.contains(&number), held == 0 && page.key.is_none());
            assert_eq!(idle.contains(&number), held == 0 && page.key.is_some());
            if let Some(key) = &page.key {
                assert_eq!(self.index.get(key), Some(&number));
                keys += 1;
            }
        }
        assert_eq!(keys, self.index.len(), "a key without its page");
        assert!(
            holders
                .keys()
                .all(|&page| (page as usize) < self.pages.len())
        );
    }

    /// The pages that are known by content.
    #[cfg(test)]
    pub(crate) fn known(&self) -> impl Iterator<Item = (Digest, u32)> + '_ {
        self.index.iter().map(|(key, page)| (*key, *page))
    }
}
