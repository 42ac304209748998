//! What one kind of object looks like now, built from watch events.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// The objects of one kind, by key. While they are listed again the old ones hold: a half-read list would look as if
/// the rest had been deleted.
#[derive(Debug)]
pub struct Contents<V> {
    current: BTreeMap<String, V>,
    relist: BTreeMap<String, V>,
    synced: bool,
}

impl<V> Default for Contents<V> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            relist: BTreeMap::new(),
            synced: false,
        }
    }
}

impl<V: PartialEq> Contents<V> {
    /// The objects, by key.
    pub fn current(&self) -> &BTreeMap<String, V> {
        &self.current
    }

    /// Whether they have been listed at least once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Takes an event; tells whether anything differs afterwards. Most updates of a Node are heartbeats that change
    /// nothing that is looked at.
    pub fn handle(&mut self, event: Event<(String, V)>) -> bool {
        match event {
            Event::Apply((key, value)) => match self.current.get(&key) {
                Some(old) if *old == value => false,
                Some(_) | None => {
                    self.current.insert(key, value);
                    true
                }
            },
            Event::Delete((key, _)) => self.current.remove(&key).is_some(),
            Event::Init => {
                self.relist.clear();
                false
            }
            Event::InitApply((key, value)) => {
                self.relist.insert(key, value);
                false
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.relist);
                self.replace(listed)
            }
        }
    }

    /// The kind itself does not exist: the same as a list of none.
    pub fn absent(&mut self) -> bool {
        self.replace(BTreeMap::new())
    }

    fn replace(&mut self, listed: BTreeMap<String, V>) -> bool {
        let changed = !self.synced || self.current != listed;
        self.current = listed;
        self.synced = true;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(key: &str, value: u32) -> (String, u32) {
        (key.to_owned(), value)
    }

    fn seen(contents: &Contents<u32>) -> Vec<(&str, u32)> {
        contents
            .current()
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect()
    }

    #[test]
    fn the_old_objects_hold_until_the_new_list_is_complete() {
        let mut contents = Contents::default();
        contents.handle(Event::Init);
        contents.handle(Event::InitApply(at("a", 1)));
        contents.handle(Event::InitApply(at("b", 1)));
        assert!(!contents.is_synced());
        assert_eq!(seen(&contents), []);
        assert!(contents.handle(Event::InitDone));
        assert!(contents.is_synced());

        contents.handle(Event::Init);
        assert!(!contents.handle(Event::InitApply(at("b", 2))));
        assert_eq!(seen(&contents), [("a", 1), ("b", 1)]);
        // The list broke off and begins anew: what the first attempt saw is forgotten.
        contents.handle(Event::Init);
        contents.handle(Event::InitApply(at("c", 3)));
        assert!(contents.handle(Event::InitDone));
        assert_eq!(seen(&contents), [("c", 3)]);
    }

    #[test]
    fn only_a_difference_counts_as_change() {
        let mut contents = Contents::default();
        assert!(
            contents.handle(Event::InitDone),
            "the first list, even of none, is news"
        );
        assert!(contents.handle(Event::Apply(at("a", 1))));
        assert!(!contents.handle(Event::Apply(at("a", 1))));
        assert!(contents.handle(Event::Apply(at("a", 2))));
        contents.handle(Event::Init);
        contents.handle(Event::InitApply(at("a", 2)));
        assert!(!contents.handle(Event::InitDone));
        assert!(contents.handle(Event::Delete(at("a", 2))));
        assert!(!contents.handle(Event::Delete(at("a", 2))));
    }

    #[test]
    fn a_kind_that_does_not_exist_is_an_empty_list() {
        let mut contents: Contents<u32> = Contents::default();
        assert!(contents.absent());
        assert!(contents.is_synced());
        assert!(!contents.absent());
    }
}
