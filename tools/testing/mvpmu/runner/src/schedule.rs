// SPDX-License-Identifier: GPL-2.0

//! Several pieces of work at a time, as many as there are CPUs for; what comes
//! of them is shown in their order.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

/// Does `work` on each of `items`. They are started in their order, as soon as there are as many
/// CPUs as `cpus` says (all of them, when it says more), and handed to `show` in their order.
pub fn run<T: Sync, R: Send>(
    items: &[T],
    all_cpus: usize,
    cpus: impl Fn(&T) -> usize,
    work: impl Fn(&T) -> R + Sync,
    mut show: impl FnMut(&T, R),
) {
    let (sender, receiver) = mpsc::channel();
    let mut waiting = items.iter().enumerate().peekable();
    let mut free = all_cpus;
    let mut done = BTreeMap::new();
    let mut shown = 0;
    let work = &work;
    let cpus = |item: &T| cpus(item).min(all_cpus);

    thread::scope(|scope| loop {
        while let Some((index, item)) = waiting.next_if(|(_, item)| cpus(item) <= free) {
            free -= cpus(item);
            let sender = sender.clone();
            scope.spawn(move || {
                let result = work(item);
                // The receiver lives as long as this scope.
                let _ = sender.send((index, result));
            });
        }
        if shown == items.len() {
            break;
        }
        let Ok((index, result)) = receiver.recv() else {
            break;
        };
        free += cpus(&items[index]);
        done.insert(index, result);
        while let Some(result) = done.remove(&shown) {
            show(&items[shown], result);
            shown += 1;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::sync::Barrier;

    // Seen to fail when results are shown as they come.
    #[test]
    fn results_are_shown_in_order_whichever_ends_first() {
        let both = Barrier::new(2);
        let (release, released) = mpsc::channel();
        let released = std::sync::Mutex::new(released);
        let mut shown = Vec::new();
        let work = |item: &usize| {
            both.wait();
            match item {
                // The first ends after the second.
                0 => released.lock().unwrap().recv().unwrap(),
                _ => release.send(()).unwrap(),
            }
            *item
        };
        run(&[0, 1], 2, |_| 1, work, |_, item| shown.push(item));
        assert_eq!(shown, [0, 1]);
    }

    // Seen to fail when an item is started without asking for its CPUs, and when one that wants
    // more than there are is never started.
    #[test]
    fn no_more_cpus_are_used_than_there_are() {
        let items = [1, 2, 1, 1, 9, 1, 2];
        let all = 2;
        let used = AtomicUsize::new(0);
        let mut shown = 0;
        let work = |item: &usize| {
            let mine = (*item).min(all);
            let now = used.fetch_add(mine, Ordering::SeqCst) + mine;
            thread::yield_now();
            used.fetch_sub(mine, Ordering::SeqCst);
            now
        };
        run(
            &items,
            all,
            |item| *item,
            work,
            |_, now| {
                assert!(now <= all);
                shown += 1;
            },
        );
        assert_eq!(shown, items.len());
    }
}
