//! Graphs: recorded by stream capture or made of kernel nodes, run in that order.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure, invalid};
use super::handles::{Graph, GraphExec};
use super::launch::{Request, prepare};
use super::state::Driver;
use super::submit::submit_all;
use super::types::*;
use super::work::Work;

/// `CUgraphInstantiate_flags`: free on launch, upload, device launch, node priorities.
const AUTO_FREE: u64 = 1;
const DEVICE_LAUNCH: u64 = 4;
const FLAGS: u64 = AUTO_FREE | 2 | DEVICE_LAUNCH | 8;

/// An empty graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphCreate(graph: *mut CUgraph, flags: c_uint) -> CUresult {
    border("cuGraphCreate", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        // SAFETY: `graph` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(graph)? };
        if flags != 0 {
            return fail(ERROR_INVALID_VALUE, "the flags of cuGraphCreate must be 0");
        }
        answer.write(driver.graphs.insert(Graph { context, nodes: Vec::new() }) as CUgraph);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: CUgraph) -> CUresult {
    border("cuGraphDestroy", || {
        let mut driver = lock()?;
        let graph = driver.graphs.remove(graph as usize).ok_or_else(|| invalid("graph"))?;
        for (node, _) in graph.nodes {
            driver.nodes.remove(node);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) -> CUresult {
    border("cuGraphInstantiateWithFlags", || {
        let mut driver = lock()?;
        // SAFETY: `exec` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(exec)? };
        let found = driver.graphs.get(graph as usize).ok_or_else(|| invalid("graph"))?;
        if flags & !FLAGS != 0 || flags & (AUTO_FREE | DEVICE_LAUNCH) == AUTO_FREE | DEVICE_LAUNCH {
            return fail(ERROR_INVALID_VALUE, format!("the flags {flags:#x} do not exist, or not together"));
        }
        if flags & DEVICE_LAUNCH != 0 {
            return fail(ERROR_NOT_SUPPORTED, "graphs launched by kernels are not emulated");
        }
        let context = found.context;
        driver.healthy(context)?;
        let nodes = found.nodes.iter().map(|(_, work)| work.clone()).collect();
        answer.write(driver.execs.insert(GraphExec { context, nodes }) as CUgraphExec);
        Ok(())
    })
}

/// The form before CUDA 12; on failure there is no node to blame and the log is left empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiate_v2(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_bytes: usize,
) -> CUresult {
    // SAFETY: each is null or valid for writing; the rest is the same contract.
    unsafe {
        if let Some(node) = error_node.as_mut() {
            *node = std::ptr::null_mut();
        }
        if !log.is_null() && log_bytes > 0 {
            log.write(0);
        }
        cuGraphInstantiateWithFlags(exec, graph, 0)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(exec: CUgraphExec) -> CUresult {
    border("cuGraphExecDestroy", || {
        let mut driver = lock()?;
        driver.execs.remove(exec as usize).map(|_| ()).ok_or_else(|| invalid("executable graph"))
    })
}

fn exec(driver: &Driver, handle: CUgraphExec) -> Outcome<&GraphExec> {
    driver.execs.get(handle as usize).ok_or_else(|| invalid("executable graph"))
}

/// Runs the nodes; in a capturing stream, records them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(graph: CUgraphExec, stream: CUstream) -> CUresult {
    border("cuGraphLaunch", || {
        let mut driver = lock()?;
        let nodes = exec(&driver, graph)?.nodes.clone();
        driver.tally.graph_launches += 1;
        submit_all(driver, stream, nodes, "cuGraphLaunch")
    })
}

/// Nothing is prepared ahead of a launch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphUpload(graph: CUgraphExec, stream: CUstream) -> CUresult {
    border("cuGraphUpload", || {
        let mut driver = lock()?;
        exec(&driver, graph)?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        driver.not_capturing(stream, "cuGraphUpload")
    })
}

/// The number of nodes, and their handles where `nodes` is not null; entries beyond them become null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> CUresult {
    border("cuGraphGetNodes", || {
        let driver = lock()?;
        let graph = driver.graphs.get(graph as usize).ok_or_else(|| invalid("graph"))?;
        if count.is_null() {
            return fail(ERROR_INVALID_VALUE, "the address for the number of nodes is null");
        }
        let mut number = graph.nodes.len();
        if !nodes.is_null() {
            // SAFETY: the caller states how many entries there is room for.
            let room = unsafe { count.read() };
            for at in 0..room {
                let node = graph.nodes.get(at).map_or(0, |(node, _)| *node);
                // SAFETY: `at` is less than the number of entries that there is room for.
                unsafe { nodes.add(at).write(node as CUgraphNode) };
            }
            number = number.min(room);
        }
        // SAFETY: not null.
        unsafe { count.write(number) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphNodeGetType(node: CUgraphNode, kind: *mut c_int) -> CUresult {
    border("cuGraphNodeGetType", || {
        let driver = lock()?;
        // SAFETY: `kind` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(kind)? };
        let graph = driver.nodes.get(node as usize).and_then(|graph| driver.graphs.get(*graph));
        let found = graph.and_then(|graph| graph.nodes.iter().find(|(handle, _)| *handle == node as usize));
        let (_, work) = found.ok_or_else(|| invalid("node"))?;
        answer.write(match **work {
            Work::Launch(_) => 0,
            Work::Copy(_) => 1,
            Work::Fill(_) => 2,
            Work::Host(..) => 3,
            Work::Empty => 5,
            Work::Wait => 6,
            Work::Record(_) => 7,
        });
        Ok(())
    })
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_KERNEL_NODE_PARAMS {
    pub func: CUfunction,
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub kernelParams: *mut *mut c_void,
    pub extra: *mut *mut c_void,
    pub kern: CUkernel,
    pub ctx: CUcontext,
}

/// Nodes run in the order in which they were added: what a node depends on was there before it.
fn add(
    driver: &mut Driver,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    work: Work,
) -> Outcome<usize> {
    let handle = graph as usize;
    let found = driver.graphs.get(handle).ok_or_else(|| invalid("graph"))?;
    if count > 0 && dependencies.is_null() {
        return fail(ERROR_INVALID_VALUE, "the dependencies are null");
    }
    for n in 0..count {
        // SAFETY: the caller gives `count` nodes.
        let node = unsafe { dependencies.add(n).read() } as usize;
        if !found.nodes.iter().any(|(known, _)| *known == node) {
            return Err(invalid("node of this graph"));
        }
    }
    let node = driver.nodes.insert(handle);
    if let Some(graph) = driver.graphs.get_mut(handle) {
        graph.nodes.push((node, Arc::new(work)));
    }
    Ok(node)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddKernelNode_v2(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    parameters: *const CUDA_KERNEL_NODE_PARAMS,
) -> CUresult {
    border("cuGraphAddKernelNode_v2", || {
        let mut driver = lock()?;
        // SAFETY: `node` is null or room for the answer, `parameters` is null or holds them: the caller's promise.
        let (answer, p) = unsafe { (out(node)?, parameters.as_ref()) };
        let p = p.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the parameters are null"))?;
        let request = Request {
            function: if p.func.is_null() { p.kern } else { p.func },
            grid: [p.gridDimX, p.gridDimY, p.gridDimZ],
            block: [p.blockDimX, p.blockDimY, p.blockDimZ],
            shared_bytes: p.sharedMemBytes,
            stream: std::ptr::null_mut(),
            arguments: p.kernelParams.cast_const().cast(),
            extra: p.extra,
        };
        // SAFETY: the caller gives arguments or extras as the driver's contract says.
        let launch = unsafe { prepare(&mut driver, &request)? };
        driver.permit(&launch)?;
        answer.write(add(&mut driver, graph, dependencies, count, Work::Launch(launch))? as CUgraphNode);
        Ok(())
    })
}

/// A node that only stands between others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddEmptyNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
) -> CUresult {
    border("cuGraphAddEmptyNode", || {
        let mut driver = lock()?;
        // SAFETY: `node` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(node)? };
        answer.write(add(&mut driver, graph, dependencies, count, Work::Empty)? as CUgraphNode);
        Ok(())
    })
}
