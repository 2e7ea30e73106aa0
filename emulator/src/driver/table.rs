//! Tables of handles.

use std::collections::BTreeMap;

/// Entries by handle. Handles begin with a mark of their table, ascend, and are never used again.
pub struct Table<T> {
    next: usize,
    entries: BTreeMap<usize, T>,
}

impl<T> Table<T> {
    pub fn new(mark: usize) -> Self {
        Table { next: mark << 40, entries: BTreeMap::new() }
    }

    pub fn insert(&mut self, entry: T) -> usize {
        self.next += 16;
        self.entries.insert(self.next, entry);
        self.next
    }

    pub fn get(&self, handle: usize) -> Option<&T> {
        self.entries.get(&handle)
    }

    pub fn get_mut(&mut self, handle: usize) -> Option<&mut T> {
        self.entries.get_mut(&handle)
    }

    pub fn remove(&mut self, handle: usize) -> Option<T> {
        self.entries.remove(&handle)
    }

    /// Ascending, hence in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter().map(|(handle, entry)| (*handle, entry))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.entries.iter_mut().map(|(handle, entry)| (*handle, entry))
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.entries.retain(|_, entry| keep(entry));
    }

    /// Takes out what `gone` selects.
    pub fn extract(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let handles: Vec<usize> = self.iter().filter(|(_, entry)| gone(entry)).map(|(handle, _)| handle).collect();
        handles.into_iter().filter_map(|handle| self.remove(handle)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
