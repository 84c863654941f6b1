//! The users of an item that has no counterpart, as far as the users have counterparts.

use klpx_normalize::object::ItemId;
use rayon::prelude::*;

use super::alike;
use super::side::ObjectSide;

/// The references to items without a counterpart: (item, user), sorted.
pub(super) struct UnpairedUsers(Vec<(ItemId, ItemId)>);

impl UnpairedUsers {
    /// Reads the users of every item that has no counterpart so far.
    pub(super) fn read(side: &ObjectSide<'_, '_>, paired: &[Option<ItemId>]) -> UnpairedUsers {
        let object = side.object;
        let mut users: Vec<(ItemId, ItemId)> = (0..object.items().len() as u32)
            .into_par_iter()
            .with_min_len(256)
            .flat_map_iter(|user| {
                alike::referents(object, ItemId(user))
                    .filter(move |item| paired[item.index()].is_none() && item.0 != user)
                    .map(move |item| (item, ItemId(user)))
            })
            .collect();
        users.par_sort_unstable();
        users.dedup();
        UnpairedUsers(users)
    }

    /// Returns the users of an item.
    pub(super) fn of(&self, item: ItemId) -> impl Iterator<Item = ItemId> + '_ {
        let first = self.0.partition_point(|&(used, _)| used < item);
        self.0[first..].iter().take_while(move |&&(used, _)| used == item).map(|&(_, user)| user)
    }

    /// Returns what is known of the users of an item.
    pub(super) fn roots(&self, item: ItemId, of: impl Fn(ItemId) -> User) -> UserRoots {
        let mut roots = UserRoots { paired: Vec::new(), alone: false };
        let mut visited = vec![item];
        let mut from = 0;
        for _ in 0..MAX_STEPS {
            let step = visited.len();
            for n in from..step {
                for user in self.of(visited[n]).filter(|&user| user != item) {
                    let known = of(user);
                    if let User::Paired(root) = known {
                        roots.paired.push(root);
                        continue;
                    }
                    roots.alone |= matches!(known, User::Alone);
                    if !visited.contains(&user) {
                        visited.push(user);
                    }
                }
            }
            from = step;
        }
        roots.paired.sort_unstable();
        roots.paired.dedup();
        roots
    }
}

/// The number of steps for which users without a counterpart are followed.
const MAX_STEPS: usize = 8;

/// The state of a user.
pub(super) enum User {
    /// The user has a counterpart; the id is in the original's numbering.
    Paired(ItemId),
    /// The user may get a counterpart, or needs none.
    Open,
    /// The user is gone, or new.
    Alone,
}

/// The paired items that use an item, in the original's numbering. A user without a counterpart stands for its own
/// users: the other build inlined it into them.
pub(super) struct UserRoots {
    pub(super) paired: Vec<ItemId>,
    alone: bool,
}

impl UserRoots {
    /// Returns true if only items that are gone, or new, use the item.
    pub(super) fn is_alone(&self) -> bool {
        self.paired.is_empty() && self.alone
    }

    /// Returns true if no item of known identity uses the item.
    pub(super) fn is_unknown(&self) -> bool {
        self.paired.is_empty() && !self.alone
    }
}

/// Returns true if two sorted lists share an element.
pub(super) fn overlap(a: &[ItemId], b: &[ItemId]) -> bool {
    a.iter().any(|item| b.binary_search(item).is_ok())
}
