//! `rampart submit`: a run as an array of Slurm jobs, one per part, and a job that joins them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args as ClapArgs, Parser};

use super::common::say;
use super::sweep;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::run::header::Header;
use crate::run::parts::status::{State, Status};
use crate::run::settled::quoted;

/// The exit code by which a part says that it was left off and goes on when it is started again: EX_TEMPFAIL of sysexits.h.
const LEFT_OFF: u8 = 75;

/// Send a sweep to Slurm: an array job with a task per part, and a job behind it that joins them.
///
/// Sent again for the same folder it sends the parts that are not done. Scripts and logs lie in DIR/.slurm. A part that Slurm is about to end
/// leaves off after its batch and goes back into the queue.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "  rampart submit --config sweep.toml --out runs/imagenet --shards 64 --partition gpu --gpus 1 --time 4:00:00 --dry-run\n  \
                        rampart submit --out runs/demo --shards 6 -- --limit 100 --eps 0,8/255"
)]
pub struct Args {
    /// The experiment as TOML; without it the embedded demo, or the config that --out holds
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    /// The run directory, on a file system that all nodes share
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Parts, a task of the array each; of a run that is split already its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub shards: Option<u32>,

    /// Tasks at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub throttle: Option<u32>,

    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,

    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,

    /// GPUs of each task
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,

    /// Processors of each task
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,

    /// Memory of each task, as in 16G
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,

    /// Time of each task, as in 4:00:00; one that needs more goes back into the queue
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,

    /// Seconds before its end that a task is told to leave off: more than a batch takes
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub notice: u32,

    /// Print scripts and commands, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Flags of `rampart sweep`, behind `--`
    #[arg(last = true, value_name = "FLAGS")]
    pub flags: Vec<String>,
}

/// The flags of a sweep by themselves.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Behind {
    #[command(flatten)]
    sweep: sweep::Args,
}

/// A job: its script and where that goes.
struct Job {
    file: PathBuf,
    script: String,
}

/// # Errors
/// [`Error::Usage`] for what cannot be sent; [`Error::Failed`] with what sbatch says.
pub fn run(args: &Args) -> Result<()> {
    if let Some(flag) = args.flags.iter().find(|flag| {
        ["--shard", "--out", "--resume", "--config", "--dry-run", "--if-running", "--on-preempt"]
            .iter()
            .any(|own| flag.split('=').next() == Some(own))
    }) {
        return Err(Error::usage(
            "submit",
            format!("{flag} is said by submit itself: expected other flags of `rampart sweep` behind --"),
        ));
    }
    if let Some(time) = args.time.as_deref().filter(|time| !is_time(time)) {
        let problem = format!("expected minutes, [D-]H:MM:SS, D-H or UNLIMITED as Slurm takes them, found `{time}`");
        return Err(Error::usage("--time", problem));
    }
    let out = std::path::absolute(&args.out).map_err(|e| Error::io(&args.out, "find", e))?;
    let config =
        args.config.as_ref().map(std::path::absolute).transpose().map_err(|e| Error::io(&args.out, "find", e))?;
    // What is wrong with either is better known before a job has waited for a day.
    let own = Some(out.join("config.toml")).filter(|file| file.is_file());
    let flags = std::iter::once("rampart sweep").chain(args.flags.iter().map(String::as_str));
    let behind = Behind::try_parse_from(flags).map_err(|e| {
        // What is wrong, and where that is a list, its lines; not how the command is used.
        let text = e.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let text = lines.join(" ");
        Error::usage("submit", format!("behind --: {}", text.strip_prefix("error: ").unwrap_or(&text)))
    })?;
    let meant = Config::load(config.as_deref().or(own.as_deref()), &behind.sweep.settings.overrides()?)?;
    if let Some(own) = &own
        && let Some((field, was, is)) = Header::of(&meant)?.differs(&Header::of(&Config::of_run(own)?)?)
    {
        let problem =
            format!("{}: {field} is {was} there and {is} here: leave that out, or choose another --out", own.display());
        return Err(Error::usage("submit", problem));
    }
    let status = Status::read(&out)?;
    let (of, left) = parts(args, &out, status.as_ref())?;
    let array = (!left.is_empty()).then(|| args.array(&out, config.as_deref(), of, &left)).transpose()?;
    let merge = args.merge(&out)?;
    if args.dry_run {
        return say(&shown(array.as_ref(), &merge));
    }
    let mut depends = vec![];
    if let Some(array) = &array {
        let id = sent(array, &[])?;
        say(&format!("job {id}: {} of {of} parts, {}", left.len(), array.file.display()))?;
        depends = vec![format!("--dependency=afterok:{id}"), "--kill-on-invalid-dep=yes".into()];
    }
    let id = sent(&merge, &depends)?;
    say(&format!(
        "job {id}: joins them when all are done, {}\nhow far they are: rampart status {}",
        merge.file.display(),
        quoted(&[out.display().to_string()])
    ))
}

/// Whether a limit of time can be one of Slurm's.
fn is_time(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (days, rest) = text.split_once('-').map_or((None, text), |(days, rest)| (Some(days), rest));
    let clock: Vec<&str> = rest.split(':').collect();
    ["UNLIMITED", "INFINITE"].contains(&text.to_ascii_uppercase().as_str())
        || days.is_none_or(number) && clock.len() <= 3 && clock.into_iter().all(number)
}

/// How many parts there are, and which are to be sent.
fn parts(args: &Args, out: &Path, status: Option<&Status>) -> Result<(u32, Vec<u32>)> {
    let Some(status) = status else {
        let Some(of) = args.shards else {
            return Err(Error::usage("--shards", "expected the number of parts, as in --shards 64"));
        };
        return Ok((of, (1..=of).collect()));
    };
    let of = status.parts.len() as u32;
    if let Some(asked) = args.shards.filter(|&asked| asked != of) {
        return Err(Error::usage(
            "--shards",
            format!("{} is split into {of} parts already, found {asked}", out.display()),
        ));
    }
    let running: Vec<String> = status
        .left()
        .filter(|part| matches!(part.state, State::Running(_)))
        .map(|part| part.shard.to_string())
        .collect();
    if !running.is_empty() {
        let problem =
            format!("{}: part {} is running: wait for it, or cancel its job", out.display(), running.join(", "));
        return Err(Error::usage("--out", problem));
    }
    Ok((of, status.left().map(|part| part.shard.number).collect()))
}

/// `1-64`, or of some of them `3,7-9`.
fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

impl Args {
    fn array(&self, out: &Path, config: Option<&Path>, of: u32, left: &[u32]) -> Result<Job> {
        let throttle = self.throttle.map_or(String::new(), |most| format!("%{most}"));
        let mut script = self.head(out, "%a.log", "")?;
        let _ = writeln!(script, "#SBATCH --array={}{throttle}", ranges(left));
        let _ = writeln!(script, "#SBATCH --requeue\n#SBATCH --signal=B:USR1@{}", self.notice);
        let mut words = vec![program()?, "sweep".into()];
        words.extend(config.into_iter().flat_map(|config| ["--config".into(), config.display().to_string()]));
        words.extend(["--out".into(), out.display().to_string()]);
        words.extend(["--on-preempt".into(), LEFT_OFF.to_string(), "--if-running".into(), "wait".into()]);
        words.extend(self.flags.iter().cloned());
        let _ = write!(
            script,
            "\n# Slurm tells this shell that the end is near (USR1): the program leaves off after its batch, and the task goes back into the queue.\n\
             # One that is cancelled leaves off, too, and stays away; one that is preempted Slurm itself puts back.\n\
             part= again=\n\
             trap 'told=1 again=1; kill -USR1 $part' USR1\n\
             trap 'told=1; kill -USR1 $part' TERM\n\
             {} --shard \"$SLURM_ARRAY_TASK_ID/{of}\" &\n\
             part=$! told=\n\
             wait $part; code=$?\n\
             # A signal ends the waiting, not the program.\n\
             while [ -n \"$told\" ] && [ $code -gt 128 ]; do told=; wait $part; code=$?; done\n\
             if [ $code = {LEFT_OFF} ] && [ -n \"$again\" ]; then scontrol requeue \"$SLURM_JOB_ID\"; fi\n\
             exit $code\n",
            quoted(&words)
        );
        Ok(Job { file: out.join(".slurm/parts.sh"), script })
    }

    fn merge(&self, out: &Path) -> Result<Job> {
        let mut script = self.head(out, "merge.log", "-merge")?;
        let mut words = vec![program()?, "merge".into(), out.display().to_string()];
        words.extend(self.flags.iter().filter(|flag| ["--no-checks", "--strict"].contains(&flag.as_str())).cloned());
        let _ = write!(script, "\nexec {}\n", quoted(&words));
        Ok(Job { file: out.join(".slurm/merge.sh"), script })
    }

    /// What the job asks for.
    fn head(&self, out: &Path, log: &str, suffix: &str) -> Result<String> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let mut lines = vec![format!("--job-name={name}{suffix}")];
        lines.extend(self.partition.as_ref().map(|name| format!("--partition={name}")));
        lines.extend(self.account.as_ref().map(|name| format!("--account={name}")));
        lines.extend(self.gpus.map(|n| format!("--gres=gpu:{n}")));
        lines.push("--ntasks=1".into());
        lines.extend(self.cpus.map(|n| format!("--cpus-per-task={n}")));
        lines.extend(self.mem.as_ref().map(|size| format!("--mem={size}")));
        lines.extend(self.time.as_ref().map(|time| format!("--time={time}")));
        lines.push(format!("--output={}", out.join(".slurm").join(log).display()));
        lines.push("--open-mode=append".into());
        if let Some(bad) = lines.iter().find(|line| line.contains(['\n', '"', '\\']) || line.contains(' ')) {
            return Err(Error::usage(
                "submit",
                format!("a line of a job script cannot say `{bad}`: expected no spaces and quotes"),
            ));
        }
        let lines: String = lines.iter().map(|line| format!("#SBATCH {line}\n")).collect();
        Ok(format!("#!/bin/bash\n{lines}"))
    }
}

fn program() -> Result<String> {
    let path = std::env::current_exe().map_err(|e| Error::io(Path::new("rampart"), "find this program", e))?;
    Ok(path.display().to_string())
}

fn shown(array: Option<&Job>, merge: &Job) -> String {
    let mut text = String::new();
    for Job { file, script } in array.into_iter().chain([merge]) {
        let _ = writeln!(text, "# {}\n{script}", file.display());
    }
    let command =
        |job: &Job, more: &str| format!("sbatch --parsable{more} {}", quoted(&[job.file.display().to_string()]));
    match array {
        Some(array) => {
            let _ = writeln!(text, "id=$({})", command(array, ""));
            text += &command(merge, " --dependency=afterok:$id --kill-on-invalid-dep=yes");
        }
        None => text += &command(merge, ""),
    }
    text
}

/// Writes the script and hands it to sbatch; the number of the job.
fn sent(job: &Job, more: &[String]) -> Result<String> {
    write_whole(&job.file, job.script.as_bytes())?;
    let ran = Command::new("sbatch").arg("--parsable").args(more).arg(&job.file).output();
    let ran = ran.map_err(|e| Error::io(Path::new("sbatch"), "start (--dry-run prints what would be sent)", e))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match ran.status.success() {
        // With a cluster's name behind it where there are several.
        true => Ok(text(&ran.stdout).split(';').next().unwrap_or_default().to_owned()),
        false => Err(Error::Failed(format!("sbatch {}: {}", job.file.display(), text(&ran.stderr)))),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_time, ranges};

    #[test]
    fn limits_of_time_are_slurms() {
        assert!(["30", "30:00", "4:00:00", "1-0", "2-12:30:00", "unlimited"].into_iter().all(is_time));
        assert!(["abc", "", "4h", "1:2:3:4", "-1", "1-"].into_iter().all(|text| !is_time(text)));
    }

    #[test]
    fn parts_are_named_as_sbatch_takes_them() {
        assert_eq!(ranges(&[1, 2, 3, 4]), "1-4");
        assert_eq!(ranges(&[3, 7, 8, 9, 12]), "3,7-9,12");
    }
}
