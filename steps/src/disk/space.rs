use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    setting::Size,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Space>();

/// Measures the room on the file system that holds a path, and fails when there is too little.
///
/// If the path does not exist, its nearest parent that does is measured: that is where a file made there would go. Too little
/// room is worth another try, since what fills a disk may be cleaned up meanwhile.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Space {
    /// A path on the file system.
    path: String,
    /// The least that has to be free, such as `"200GiB"`. Not said: it is only measured.
    least: Option<Size>,
}

/// The room on a file system.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Room {
    /// The absolute path.
    path: String,
    /// The directory that was measured: the path, or its nearest parent that exists.
    measured: String,
    /// Bytes that this user may still write.
    free_bytes: u64,
    /// Bytes that the file system has in all.
    total_bytes: u64,
    /// `free_bytes` in percent of `total_bytes`.
    free_percent: f64,
}

impl Step for Space {
    const NAME: &'static str = "disk.space";
    const EXAMPLES: &'static [&'static str] = &["path = \".\"\n", "path = \"data\"\nleast = \"1KiB\"\n"];
    const RERUN: bool = true;
    type Before = ();
    type Output = Room;

    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    async fn look(&self, _: &View) -> Result<(), Error> {
        Ok(())
    }
    fn say(&self, (): &()) -> String {
        match self.least {
            None => format!("measure the space free for {}", self.path),
            Some(least) => format!("see that at least {least} are free for {}", self.path),
        }
    }
    async fn apply(&self, world: &World, (): &()) -> Result<Room, Error> {
        let (path, least) = (self.path.clone(), self.least);
        // A network file system that hangs must not hold up the other steps.
        world.blocking(move |world| room(world, &path).and_then(|room| enough(room, least))).await
    }
    async fn undo(&self, _: &World, (): &()) -> Result<(), Error> {
        Ok(())
    }
}

fn room(view: &View, path: &str) -> Result<Room, Error> {
    let path: std::path::PathBuf = view.path(path).components().collect();
    let mut measured = path.as_path();
    while view.metadata(measured)?.is_none() {
        let Some(parent) = measured.parent() else { break };
        measured = parent;
    }
    let (free_bytes, total_bytes) = view.space(measured)?;
    let free_percent = if total_bytes == 0 { 0.0 } else { free_bytes as f64 * 100.0 / total_bytes as f64 };
    Ok(Room { path: path.display().to_string(), measured: measured.display().to_string(), free_bytes, total_bytes, free_percent })
}

fn enough(room: Room, least: Option<Size>) -> Result<Room, Error> {
    let Some(least) = least.filter(|least| room.free_bytes < least.0) else { return Ok(room) };
    let (free, total) = (Size(room.free_bytes), Size(room.total_bytes));
    Err(Error::Passing(format!(
        "{free} of {total} are free for {} (measured at {}), and {least} are needed; make room and try again",
        room.path, room.measured
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_worth_another_try() {
        let room = |free_bytes| Room { path: "/b".into(), measured: "/".into(), free_bytes, total_bytes: 100, free_percent: 1.0 };
        assert!(enough(room(10), None).is_ok());
        assert!(enough(room(10), Some(Size(10))).is_ok());
        assert!(matches!(enough(room(9), Some(Size(10))), Err(Error::Passing(says)) if says.contains("9 B") && says.contains("10 B")));
    }
}
