//! A task of an export at work: a range of a table, or what is gone of it, to files.

use crate::error::Error;
use crate::fhir::search_filter::Filter as Search;
use crate::fhir::search_parameters::{self, Path};
use crate::job::retry;
use crate::job::step::Step;
use crate::job::worker::Operation;
use crate::operation::export::patients::{self, Patients};
use crate::operation::export::spec::{Export, PatientScope};
use crate::operation::export::{cleanup, snapshot_holder, target};
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::process::{exported_snapshot, transaction};
use crate::pg::read::cursor_scan::{self, Filter, Scan, When};
use crate::pg::state::enums::TaskKind;
use crate::pg::state::export_run::{Kind, OutputFile, Run};
use crate::pg::state::job::Job;
use crate::pg::state::task::Task;
use crate::pg::state::{disabled_index, export_run as files, task_progress};
use crate::pg::sys::privilege::Right;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::sys::{guc, latch};
use crate::pipeline::dump::export::{self, Exporter, What};
use crate::pipeline::parallel_map::ParallelMap;
use crate::pipeline::uploader::Uploader;
use crate::pipeline::wait_control::WaitControl;
use crate::retry::Backoff;
use crate::store::net::client_config::ClientConfig;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Times that a task is begun again after a fault of the store.
const RETRIES: u32 = 2;
/// How long a snapshot is waited for that its holder is about to take, and between two looks for it.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);
const SNAPSHOT_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a silent store is waited for before a look at whether the task is still wanted.
const SILENCE: Duration = Duration::from_millis(400);

/// An export at work.
pub struct Exporting {
    export: Export,
    memory: Memory,
}

/// What a worker knows from one task to the next.
#[derive(Default)]
struct Memory(Option<(i64, Option<Patients>)>);

impl Exporting {
    /// An export of which no task has been done here.
    pub fn new(export: Export) -> Exporting {
        Exporting { export, memory: Memory::default() }
    }
}

impl Operation for Exporting {
    fn task(&mut self, job: &Job, task: &mut Task) -> Result<Step, Failure> {
        match task.kind {
            TaskKind::Snapshot => snapshot_holder::hold(job, &self.export, task),
            _ => write(job, &self.export, task, &mut self.memory),
        }
    }

    /// What fails one task fails the export.
    fn fail(&self, job: &Job, _: &Task, failure: &Failure) -> Result<(), Error> {
        cleanup::fail(job, &self.export.sink, &failure.message())
    }
}

/// Waits for a store, and looks now and then whether the task is wanted.
struct TaskCancelPoll<'a> {
    job: &'a Job,
    task: &'a Task,
    looked: Instant,
}

impl TaskCancelPoll<'_> {
    /// Looks, unless that was just done.
    fn poll(&mut self) -> Result<(), Error> {
        if self.looked.elapsed() < SILENCE {
            return Ok(());
        }
        self.looked = Instant::now();
        if files::is_wanted(self.job, self.task)? { Ok(()) } else { Err(Error::Stopped) }
    }
}

impl WaitControl for TaskCancelPoll<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        latch::for_event(event, Some(SILENCE));
        self.poll()
    }
}

/// Writes a task's files, whole.
fn write(job: &Job, export: &Export, task: &mut Task, memory: &mut Memory) -> Result<Step, Failure> {
    loop {
        let Some((run, name)) = begun(job, task)? else { return Ok(Step::Unwanted) };
        let failure = match write_files(job, export, task, &run, &name, memory) {
            Ok((written, read)) => {
                transaction::run(None, || files::end(job, task, &run, &written, read))?;
                return Ok(Step::Ended);
            }
            Err(Failure::Ours(Error::Stopped)) => return Ok(Step::Unwanted),
            Err(failure) => failure,
        };
        // Its holder may just be gone, and the task with it; or the job.
        pause(SNAPSHOT_POLL_INTERVAL * 10)?;
        let is_wanted = transaction::run(None, || files::is_wanted(job, task))?;
        if !is_wanted || transaction::run(None, || exported_snapshot::find(job.number))?.as_deref() != Some(name.as_str()) {
            return Ok(Step::Unwanted);
        }
        if !failure.is_transient() || task.tries >= RETRIES {
            return Err(failure);
        }
        transaction::run(None, || task_progress::try_again(task, &failure.message()))?;
        if !retry::back_off(job, Backoff::PATIENT, task.tries)? {
            return Ok(Step::Unwanted);
        }
    }
}

fn pause(time: Duration) -> Result<(), Failure> {
    subtransaction::outside(|| {
        latch::pause(time);
        Ok(())
    })
}

/// The run and its snapshot; None where the task is not wanted any more.
fn begun(job: &Job, task: &Task) -> Result<Option<(Run, String)>, Failure> {
    let began = Instant::now();
    loop {
        let found = transaction::run(None, || match files::is_wanted(job, task)? {
            true => Ok(Some((files::latest_run(job)?, exported_snapshot::find(job.number)?))),
            false => Ok(None),
        })?;
        match found {
            None => return Ok(None),
            Some((Some(run), Some(name))) => return Ok(Some((run, name))),
            // Who comes to the job next becomes the holder.
            Some(_) if began.elapsed() > SNAPSHOT_TIMEOUT => return Ok(None),
            Some(_) => pause(SNAPSHOT_POLL_INTERVAL)?,
        }
    }
}

fn write_files(
    job: &Job,
    export: &Export,
    task: &Task,
    run: &Run,
    name: &str,
    memory: &mut Memory,
) -> Result<(Vec<OutputFile>, u64), Failure> {
    let role = job.role;
    let (access, tables) = transaction::run(role, || {
        if role.is_none() {
            return Err(Error::NoRole);
        }
        Right::to_write(&export.sink.bucket).require()?;
        let mut tables = resource_table::with_history(&task.source)?;
        if !matches!(export.scope, PatientScope::Everybodys) {
            tables.extend(resource_table::find("patient"));
        }
        if let PatientScope::Members { table, .. } = &export.scope {
            tables.extend(resource_table::find_qualified(table)?);
        }
        Ok((target::access(&export.sink)?, resource_table::with_children(tables)?))
    })?;
    exported_snapshot::through(role, name, &tables, || {
        let resource_type = task.resource_type.as_deref().unwrap_or_default();
        let Some(table) = resource_table::find_qualified(&task.source)?.map(resource_table::describe).transpose()? else {
            return Err(Error::UnknownType(resource_type.to_owned()));
        };
        let patients = match &memory.0 {
            Some((known, patients)) if *known == run.number => patients.clone(),
            _ => {
                let patients = patients::of(&export.scope, patient_table(export)?.as_ref())?;
                memory.0 = Some((run.number, patients.clone()));
                patients
            }
        };
        let what = if task.kind == TaskKind::Deleted { What::Deletion } else { What::Resource };
        let exporter = exporter(export, &table, resource_type, what, patients.as_ref())?;
        let filter = filter(export, task, &table, resource_type, patients.as_ref())?;
        let files = Files {
            export,
            access,
            base: format!("{}/{}", run.folder, base(task, resource_type, what)),
            resource_type: resource_type.to_owned(),
            kind: if what == What::Deletion { Kind::Deleted } else { Kind::Output },
            uploader: None,
            errors: None,
            open: None,
            error: None,
            written: Vec::new(),
        };
        let mut control = TaskCancelPoll { job, task, looked: Instant::now() };
        match what {
            What::Resource => cursor_scan::with_rows(&table, filter, |rows| files.fill(rows, exporter, &mut control)),
            What::Deletion => {
                let history = match resource_table::history(&table) {
                    Some((oid, _)) => Some(resource_table::describe(oid)?),
                    None => None,
                };
                cursor_scan::with_deleted(&table, history.as_ref(), filter, |rows| files.fill(rows, exporter, &mut control))
            }
        }
    })
}

/// The table of Patients: that which is exported, else the one that the role's path finds.
fn patient_table(export: &Export) -> Result<Option<Table>, Error> {
    match export.tables.iter().find(|(name, _)| name == "Patient") {
        Some((_, table)) => resource_table::find_qualified(table)?.map(resource_table::describe).transpose(),
        None => resource_table::lookup("Patient"),
    }
}

/// The name of a task's files, without what follows.
fn base(task: &Task, resource_type: &str, what: What) -> String {
    match what {
        What::Resource => format!("{resource_type}-{}", task.ordinal),
        What::Deletion => format!("deleted/{resource_type}-{}", task.ordinal),
    }
}

fn paths(resource_type: &str) -> &'static [Path] {
    search_parameters::r4().compartment(resource_type).unwrap_or_default()
}

fn exporter(export: &Export, table: &Table, resource_type: &str, what: What, patients: Option<&Patients>) -> Result<Exporter, Error> {
    let paths = paths(resource_type);
    let scope = match (&export.scope, patients) {
        (PatientScope::AllPatients, _) if what == What::Deletion => export::CompartmentFilter::AnyPatients { paths },
        (_, Some(patients)) => export::CompartmentFilter::Patients { ids: patients.ids.clone(), paths },
        (_, None) => export::CompartmentFilter::Everybodys,
    };
    let filters = export.filters.iter().filter(|(name, _)| name == resource_type);
    let filters: Result<Vec<Search>, String> = filters.map(|(name, query)| Search::parse(search_parameters::r4(), name, query)).collect();
    Ok(Exporter {
        config: patients::config(table, resource_type),
        what,
        scope,
        filters: filters.map_err(Error::Internal)?,
        elements: export.elements.clone(),
        group: match &export.scope {
            PatientScope::Members { group, with_group, .. } => Some((group.clone(), *with_group)),
            _ => None,
        },
        gzip: export.gzip,
    })
}

/// What of the task can be chosen by the database.
fn filter(export: &Export, task: &Task, table: &Table, resource_type: &str, patients: Option<&Patients>) -> Result<Filter, Error> {
    let mut filter = Filter::default();
    if let Some((first, end)) = task.pages {
        filter.pages(first, end);
    }
    if let Some(since) = export.since {
        filter.written(When::After, since);
    }
    if let Some(until) = export.until {
        filter.written(When::Before, until);
    }
    let few = patients.and_then(|patients| patients.few.as_ref());
    if let Some(few) = few
        && task.kind == TaskKind::Table
        && disabled_index::serves_patterns(table.oid)?
    {
        let stored = guc::resource_format();
        let paths = paths(resource_type);
        let mut ids = if resource_type == "Patient" { few.clone() } else { Vec::new() };
        if let (PatientScope::Members { group, with_group: true, .. }, "Group") = (&export.scope, resource_type) {
            ids.push(group.clone());
        }
        let patterns = paths.iter().flat_map(|path| few.iter().map(move |id| path.pattern("Patient", id, stored))).collect();
        filter.one_of(ids, patterns);
    }
    Ok(filter)
}

/// The files of a task as they are written.
struct Files<'a> {
    export: &'a Export,
    access: ClientConfig,
    base: String,
    resource_type: String,
    kind: Kind,
    uploader: Option<Uploader>,
    errors: Option<Uploader>,
    /// That being written.
    open: Option<OutputFile>,
    error: Option<OutputFile>,
    written: Vec<OutputFile>,
}

impl Files<'_> {
    /// Writes what comes of rows: the files, and how many rows were read.
    fn fill(mut self, rows: Scan, exporter: Exporter, control: &mut TaskCancelPoll) -> Result<(Vec<OutputFile>, u64), Error> {
        let most = usize::try_from(self.export.file_rows).unwrap_or(usize::MAX);
        let mut pipe = ParallelMap::new(rows, exporter, guc::dump_threads()).with_most_rows(most);
        let mut read = 0;
        while let Some(made) = pipe.next(control)? {
            control.poll()?;
            read += made.read;
            if made.lines > 0 {
                self.add(control, made.bytes, made.lines)?;
            }
            if made.failed > 0 {
                self.complain(control, made.outcomes, made.failed)?;
            }
        }
        drop(pipe);
        self.close(control)?;
        if let (Some(uploader), Some(error)) = (&mut self.errors, self.error.take()) {
            uploader.close(control)?;
            self.written.push(error);
        }
        for uploader in [self.uploader, self.errors].into_iter().flatten() {
            uploader.finish(control)?;
        }
        Ok((self.written, read))
    }

    fn name(&self, ending: &str) -> String {
        format!("{}{ending}.ndjson{}", self.base, if self.export.gzip { ".gz" } else { "" })
    }

    fn add(&mut self, control: &mut dyn WaitControl, bytes: Vec<u8>, lines: u64) -> Result<(), Error> {
        let size = bytes.len() as u64;
        if let Some(open) = &self.open
            && (open.count + lines > self.export.file_rows || open.size >= self.export.file_size)
        {
            self.close(control)?;
        }
        let uploader = match &mut self.uploader {
            Some(uploader) => uploader,
            none => none.insert(Uploader::new(self.export.sink.bucket.clone(), self.access.clone())?),
        };
        if self.open.is_none() {
            let number = self.written.len();
            let ending = if number == 0 { String::new() } else { format!("-{}", number + 1) };
            let key = format!("{}{ending}.ndjson{}", self.base, if self.export.gzip { ".gz" } else { "" });
            uploader.open(control, &key)?;
            self.open = Some(OutputFile { key, kind: self.kind, resource_type: self.resource_type.clone(), count: 0, size: 0 });
        }
        if let Some(open) = &mut self.open {
            open.count += lines;
            open.size += size;
        }
        uploader.write(control, bytes)
    }

    fn close(&mut self, control: &mut dyn WaitControl) -> Result<(), Error> {
        if let (Some(uploader), Some(open)) = (&mut self.uploader, self.open.take()) {
            uploader.close(control)?;
            self.written.push(open);
        }
        Ok(())
    }

    /// What is to be said of resources that could not be written.
    fn complain(&mut self, control: &mut dyn WaitControl, bytes: Vec<u8>, lines: u64) -> Result<(), Error> {
        let key = self.name("").replacen('/', "/error/", 1);
        let uploader = match &mut self.errors {
            Some(uploader) => uploader,
            none => none.insert(Uploader::new(self.export.sink.bucket.clone(), self.access.clone())?),
        };
        if self.error.is_none() {
            uploader.open(control, &key)?;
        }
        let error = self.error.get_or_insert_with(|| OutputFile {
            key,
            kind: Kind::Error,
            resource_type: "OperationOutcome".to_owned(),
            count: 0,
            size: 0,
        });
        error.count += lines;
        error.size += bytes.len() as u64;
        uploader.write(control, bytes)
    }
}
