//! Objects, the resource version counter and the history that watches are replayed from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::meta;

/// What happened to an object.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) storage: Arc<str>,
    /// The object before: absent when it was created.
    pub(crate) old: Option<Arc<Value>>,
    /// The object after: absent when it was deleted.
    pub(crate) new: Option<Arc<Value>>,
    /// The last state, stamped with the version of this event, for a watcher that sees it go.
    pub(crate) last: Arc<Value>,
}

type Collection = BTreeMap<(String, String), Arc<Value>>;

/// All objects of all resources. Versions count up by one per write over the whole store, as in etcd.
#[derive(Debug)]
pub(crate) struct Store {
    collections: BTreeMap<Arc<str>, Collection>,
    history: VecDeque<Event>,
    capacity: usize,
    version: u64,
    /// Version of the newest event that is no longer in the history.
    floor: u64,
}

impl Store {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            collections: BTreeMap::new(),
            history: VecDeque::new(),
            capacity,
            version: 1,
            floor: 0,
        }
    }

    /// Version of the last write.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Version of the newest forgotten event: what came after it can be replayed.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.collections
            .get(storage)?
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Objects in order of namespace and name; `namespace` empty means all of them.
    pub(crate) fn list<'a>(
        &'a self,
        storage: &str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let all = self.collections.get(storage).into_iter().flatten();
        all.filter(move |((ns, _), _)| namespace.is_empty() || ns == namespace)
            .map(|(_, object)| object)
    }

    /// Names of the collections that hold something in `namespace`.
    pub(crate) fn storages_in(&self, namespace: &str) -> Vec<Arc<str>> {
        let holds = |objects: &Collection| objects.keys().any(|(ns, _)| ns == namespace);
        self.collections
            .iter()
            .filter(|(_, objects)| holds(objects))
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Stores `object`, giving it the next version.
    pub(crate) fn put(&mut self, storage: &str, mut object: Value) -> Arc<Value> {
        let version = self.next_version();
        meta::metadata(&mut object).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let key = (
            meta::namespace(&object).to_owned(),
            meta::name(&object).to_owned(),
        );
        let object = Arc::new(object);
        let storage: Arc<str> = storage.into();
        let collection = self.collections.entry(Arc::clone(&storage)).or_default();
        let old = collection.insert(key, Arc::clone(&object));
        self.remember(Event {
            version,
            storage,
            old,
            new: Some(Arc::clone(&object)),
            last: Arc::clone(&object),
        });
        object
    }

    /// Removes an object and returns its last state, which bears the version of the removal.
    pub(crate) fn remove(&mut self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let old = self
            .collections
            .get_mut(storage)?
            .remove(&(namespace.to_owned(), name.to_owned()))?;
        let version = self.next_version();
        let mut last = (*old).clone();
        meta::metadata(&mut last).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let last = Arc::new(last);
        self.remember(Event {
            version,
            storage: storage.into(),
            old: Some(old),
            new: None,
            last: Arc::clone(&last),
        });
        Some(last)
    }

    /// Events of one collection after version `after`, oldest first.
    pub(crate) fn since<'a>(&'a self, storage: &'a str, after: u64) -> impl Iterator<Item = &'a Event> {
        let from = self.history.partition_point(|event| event.version <= after);
        self.history
            .range(from..)
            .filter(move |event| &*event.storage == storage)
    }

    /// Forgets the whole history. The version moves on, so that even a client that is up to date has to list again.
    pub(crate) fn expire(&mut self) {
        self.history.clear();
        self.floor = self.next_version();
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn remember(&mut self, event: Event) {
        self.history.push_back(event);
        while self.history.len() > self.capacity {
            if let Some(dropped) = self.history.pop_front() {
                self.floor = dropped.version;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn named(name: &str) -> Value {
        json!({ "metadata": { "name": name } })
    }

    #[test]
    fn versions_count_every_write_and_deletions_have_one_of_their_own() {
        let mut store = Store::new(10);
        let a = store.put("nodes.", named("a"));
        let b = store.put("nodes.", named("b"));
        let gone = store.remove("nodes.", "", "a").unwrap();
        let versions: Vec<u64> = [&a, &b, &gone]
            .iter()
            .map(|o| meta::text(o, "resourceVersion").parse().unwrap())
            .collect();
        assert_eq!(versions, [2, 3, 4]);
        assert!(store.remove("nodes.", "", "a").is_none());
        assert_eq!(store.version(), 4, "removing nothing is no write");
    }

    #[test]
    fn history_is_cut_at_its_capacity_and_the_floor_says_where() {
        let mut store = Store::new(2);
        for name in ["a", "b", "c"] {
            store.put("nodes.", named(name));
        }
        assert_eq!(store.floor(), 2);
        assert_eq!(store.since("nodes.", 2).count(), 2);
        store.expire();
        assert_eq!((store.floor(), store.version()), (5, 5));
        assert_eq!(
            store.list("nodes.", "").count(),
            3,
            "expiry forgets events, not objects"
        );
    }
}
