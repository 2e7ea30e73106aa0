//! Capture into graphs, replay, and what is illegal meanwhile.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::*;
use ptx_emulator::driver::{context::*, copy::*, event::*, graph::*, memory::*, module::*, stream::*, types::*};
use ptx_emulator::finding::Kind;

const GLOBAL: i32 = 0;
const THREAD_LOCAL: i32 = 1;
const RELAXED: i32 = 2;

fn begin(stream: CUstream, mode: i32) {
    ok(unsafe { cuStreamBeginCapture_v2(stream, mode) });
}

fn end(stream: CUstream) -> CUgraph {
    let mut graph = null_mut();
    ok(unsafe { cuStreamEndCapture(stream, &mut graph) });
    graph
}

/// Ending the capture fails with this error and gives no graph.
#[track_caller]
fn end_fails(stream: CUstream, code: CUresult, words: &str) {
    let mut graph = 1 as CUgraph;
    fails(unsafe { cuStreamEndCapture(stream, &mut graph) }, code, words);
    assert!(graph.is_null());
}

fn instantiate(graph: CUgraph) -> CUgraphExec {
    let mut exec = null_mut();
    ok(unsafe { cuGraphInstantiateWithFlags(&mut exec, graph, 0) });
    exec
}

fn status(stream: CUstream) -> i32 {
    let mut status = -1;
    ok(unsafe { cuStreamIsCapturing(stream, &mut status) });
    status
}

fn event() -> CUevent {
    let mut event = null_mut();
    ok(unsafe { cuEventCreate(&mut event, EVENT_DISABLE_TIMING) });
    event
}

fn nodes(graph: CUgraph) -> Vec<i32> {
    let mut count = 0;
    unsafe {
        ok(cuGraphGetNodes(graph, null_mut(), &mut count));
        let mut nodes = vec![1 as CUgraphNode; count + 1];
        count += 1;
        ok(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count));
        assert_eq!(nodes.pop(), Some(null_mut()));
        assert_eq!(nodes.len(), count);
        let kind = |node| {
            let mut kind = -1;
            ok(cuGraphNodeGetType(node, &mut kind));
            kind
        };
        nodes.into_iter().map(kind).collect()
    }
}

#[test]
fn capture_records_and_replay_runs() {
    let session = Session::new();
    let (stream, function) = (session.stream(1), session.function("step"));
    let (a, b) = (session.upload(&[5; 32]), allocate(128));
    let mut host = [0i32; 32];
    begin(stream, THREAD_LOCAL);
    assert_eq!((status(stream), status(session.stream(1))), (1, 0));
    for factor in [2, 3] {
        // The arguments are copied: the loop's variable changes.
        ok(step(function, a, factor, 32, stream));
    }
    unsafe {
        ok(cuMemsetD32Async(b, 9, 32, stream));
        ok(cuMemcpyDtoDAsync_v2(b, a, 64, stream));
        ok(cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), b, 128, stream));
    }
    let graph = end(stream);
    assert_eq!(status(stream), 0);
    assert_eq!(nodes(graph), [0, 0, 2, 1, 1]);
    assert_eq!((download(a, 32), host), (vec![5; 32], [0; 32]), "nothing ran");

    let exec = instantiate(graph);
    ok(unsafe { cuGraphDestroy(graph) });
    ok(unsafe { cuGraphUpload(exec, stream) });
    let mut expected = 5;
    for _ in 0..3 {
        ok(unsafe { cuGraphLaunch(exec, stream) });
        expected = (expected * 2 + 1) * 3 + 1;
        assert_eq!(host[..16], [expected; 16]);
        assert_eq!(host[16..], [9; 16]);
    }
    unsafe {
        ok(cuGraphExecDestroy(exec));
        fails(cuGraphExecDestroy(exec), ERROR_INVALID_HANDLE, "executable graph");
        fails(cuGraphLaunch(exec, stream), ERROR_INVALID_HANDLE, "executable graph");
        fails(cuGraphDestroy(graph), ERROR_INVALID_HANDLE, "graph");
        fails(cuGraphInstantiateWithFlags(&mut null_mut(), graph, 0), ERROR_INVALID_HANDLE, "graph");
        fails(cuGraphGetNodes(graph, null_mut(), &mut 0), ERROR_INVALID_HANDLE, "graph");
    }
    free(a);
    free(b);
    assert!(findings().is_empty());
}

/// A copy from the host reads when the graph runs, as on hardware.
#[test]
fn captured_copies_read_when_they_run() {
    let session = Session::new();
    let stream = session.stream(1);
    let at = session.upload(&[0]);
    let source = Box::leak(Box::new([1i32]));
    begin(stream, RELAXED);
    ok(unsafe { cuMemcpyHtoDAsync_v2(at, source.as_ptr().cast(), 4, stream) });
    let exec = instantiate(end(stream));
    for value in [7, 8] {
        unsafe { source.as_mut_ptr().write_volatile(value) };
        ok(unsafe { cuGraphLaunch(exec, stream) });
        assert_eq!(download(at, 1), [value]);
    }
    free(at);
}

#[test]
fn forked_streams_join_one_graph() {
    let session = Session::new();
    let function = session.function("step");
    let (main, side) = (session.stream(1), session.stream(0));
    let (fork, join) = (event(), event());
    let at = session.upload(&[1; 32]);
    begin(main, GLOBAL);
    ok(step(function, at, 2, 32, main));
    unsafe {
        ok(cuEventRecord(fork, main));
        ok(cuStreamWaitEvent(side, fork, 0));
        assert_eq!(status(side), 1);
        ok(step(function, at, 3, 32, side));
        ok(cuEventRecord(join, side));
        for call in [cuEventQuery(join), cuEventSynchronize(join), cuEventQuery(fork)] {
            fails(call, ERROR_CAPTURED_EVENT, "capture");
        }
        ok(cuStreamWaitEvent(main, join, 0));
    }
    ok(step(function, at, 5, 32, main));
    let graph = end(main);
    assert_eq!((nodes(graph), status(side)), (vec![0; 3], 0));
    ok(unsafe { cuGraphLaunch(instantiate(graph), side) });
    assert_eq!(download(at, 32), [((2 + 1) * 3 + 1) * 5 + 1; 32]);
    // The events belong to a capture that has ended.
    fails(unsafe { cuEventQuery(join) }, ERROR_CAPTURED_EVENT, "capture");
    fails(unsafe { cuStreamWaitEvent(main, join, 0) }, ERROR_CAPTURED_EVENT, "ended");
    ok(unsafe { cuEventRecord(join, main) });
    ok(unsafe { cuEventQuery(join) });
    free(at);
}

#[test]
fn unjoined_work_is_refused() {
    let session = Session::new();
    let function = session.function("step");
    let (main, side) = (session.stream(1), session.stream(1));
    let (fork, early) = (event(), event());
    let at = session.upload(&[1; 32]);
    for work in [0, 1, 2] {
        begin(main, RELAXED);
        unsafe {
            ok(cuEventRecord(fork, main));
            ok(cuStreamWaitEvent(side, fork, 0));
            fails(cuStreamEndCapture(side, &mut null_mut()), ERROR_STREAM_CAPTURE_UNMATCHED, "another stream");
        }
        end_fails(main, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier illegal call");

        begin(main, RELAXED);
        unsafe {
            ok(cuEventRecord(fork, main));
            ok(cuStreamWaitEvent(side, fork, 0));
        }
        if work > 0 {
            ok(step(function, at, 2, 32, side));
        }
        if work > 1 {
            // What follows the joining event is not joined.
            ok(unsafe { cuEventRecord(early, side) });
            ok(step(function, at, 2, 32, side));
            ok(unsafe { cuStreamWaitEvent(main, early, 0) });
        }
        match work {
            0 => assert!(nodes(end(main)).is_empty()),
            _ => end_fails(main, ERROR_STREAM_CAPTURE_UNJOINED, "does not wait"),
        }
        assert_eq!((status(main), status(side)), (0, 0));
    }
    assert_eq!(download(at, 32), [1; 32]);
    free(at);
}

#[test]
fn illegal_calls_invalidate_the_capture() {
    let session = Session::new();
    let stream = session.stream(1);
    let at = session.upload(&[0; 32]);
    let function = session.function("step");
    let mut address = 0;
    type Call<'a> = (&'a str, Box<dyn FnMut() -> CUresult + 'a>);
    let calls: [Call; 6] = [
        ("cuStreamSynchronize", Box::new(|| unsafe { cuStreamSynchronize(stream) })),
        ("cuStreamQuery", Box::new(|| unsafe { cuStreamQuery(stream) })),
        ("cuCtxSynchronize", Box::new(|| unsafe { cuCtxSynchronize() })),
        ("allocating", Box::new(|| unsafe { cuMemAllocAsync(&mut address, 4, stream) })),
        ("freeing", Box::new(|| unsafe { cuMemFreeAsync(at, stream) })),
        ("cuMemcpyDtoD_v2", Box::new(|| unsafe { cuMemcpyDtoD_v2(at, at, 4) })),
    ];
    for (name, mut call) in calls {
        begin(stream, GLOBAL);
        fails(call(), ERROR_STREAM_CAPTURE_UNSUPPORTED, name);
        assert_eq!(status(stream), 2);
        fails(step(function, at, 1, 32, stream), ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        fails(unsafe { cuEventRecord(event(), stream) }, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        end_fails(stream, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        assert_eq!(status(stream), 0);
    }
    // The stream works again.
    ok(step(function, at, 1, 32, stream));
    assert_eq!(download(at, 32), [1; 32]);
    free(at);
}

#[test]
fn modes_decide_who_may_block() {
    let session = Session::new();
    let stream = session.stream(1);
    let at = session.upload(&[4]);
    for (mode, here, elsewhere) in [(GLOBAL, false, false), (THREAD_LOCAL, false, true), (RELAXED, true, true)] {
        for (allowed, other_thread) in [(here, false), (elsewhere, true)] {
            begin(stream, mode);
            let context = session.context as usize;
            let copy = move || unsafe {
                ok(cuCtxSetCurrent(context as CUcontext));
                cuMemcpyDtoD_v2(at, at, 4)
            };
            let code = if other_thread { std::thread::spawn(copy).join().unwrap() } else { copy() };
            assert_eq!(code, if allowed { SUCCESS } else { ERROR_STREAM_CAPTURE_UNSUPPORTED }, "mode {mode}");
            let mut graph = null_mut();
            let ended = unsafe { cuStreamEndCapture(stream, &mut graph) };
            assert_eq!(ended, if allowed { SUCCESS } else { ERROR_STREAM_CAPTURE_INVALIDATED });
        }
    }
    for (mode, code) in [(GLOBAL, ERROR_STREAM_CAPTURE_WRONG_THREAD), (RELAXED, SUCCESS)] {
        begin(stream, mode);
        let (context, handle) = (session.context as usize, stream as usize);
        let ended = std::thread::spawn(move || unsafe {
            ok(cuCtxSetCurrent(context as CUcontext));
            cuStreamEndCapture(handle as CUstream, &mut null_mut())
        });
        assert_eq!(ended.join().unwrap(), code);
        if code != SUCCESS {
            end_fails(stream, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        }
    }
    free(at);
}

#[test]
fn the_null_stream_stays_out() {
    let session = Session::new();
    let function = session.function("step");
    let at = session.upload(&[0; 32]);
    let (blocking, free_running) = (session.stream(0), session.stream(1));
    let outside = event();
    unsafe {
        fails(cuStreamBeginCapture_v2(null_mut(), RELAXED), ERROR_STREAM_CAPTURE_UNSUPPORTED, "null stream");
        begin(blocking, RELAXED);
        fails(step(function, at, 1, 32, null_mut()), ERROR_STREAM_CAPTURE_IMPLICIT, "cuLaunchKernel");
        end_fails(blocking, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        begin(blocking, RELAXED);
        fails(cuMemcpyDtoD_v2(at, at, 4), ERROR_STREAM_CAPTURE_IMPLICIT, "cuMemcpyDtoD_v2");
        end_fails(blocking, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        begin(blocking, RELAXED);
        fails(cuStreamIsCapturing(null_mut(), &mut 0), ERROR_STREAM_CAPTURE_IMPLICIT, "null stream");
        end_fails(blocking, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");

        begin(free_running, RELAXED);
        ok(step(function, at, 1, 32, null_mut()));
        ok(cuEventRecord(outside, null_mut()));
        fails(cuStreamWaitEvent(free_running, outside, 0), ERROR_STREAM_CAPTURE_ISOLATION, "outside the capture");
        end_fails(free_running, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");

        begin(free_running, RELAXED);
        let inside = event();
        ok(cuStreamWaitEvent(free_running, inside, 0));
        ok(cuEventRecord(inside, free_running));
        fails(cuStreamWaitEvent(null_mut(), inside, 0), ERROR_STREAM_CAPTURE_IMPLICIT, "null stream");
        end_fails(free_running, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
    }
    free(at);
}

#[test]
fn captures_do_not_merge() {
    let session = Session::new();
    let (a, b) = (session.stream(1), session.stream(1));
    let mark = event();
    unsafe {
        begin(a, RELAXED);
        fails(cuStreamBeginCapture_v2(a, RELAXED), ERROR_ILLEGAL_STATE, "already");
        begin(b, RELAXED);
        ok(cuEventRecord(mark, a));
        fails(cuStreamWaitEvent(b, mark, 0), ERROR_STREAM_CAPTURE_MERGE, "another capture");
        end_fails(a, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        end_fails(b, ERROR_STREAM_CAPTURE_INVALIDATED, "earlier");
        end_fails_untouched(a);
        fails(cuStreamBeginCapture_v2(a, 3), ERROR_INVALID_VALUE, "mode 3");

        // A destroyed stream takes its capture along.
        begin(a, RELAXED);
        ok(cuEventRecord(mark, a));
        ok(cuStreamWaitEvent(b, mark, 0));
        ok(cuStreamDestroy_v2(a));
        assert_eq!(status(b), 0);
    }
}

fn end_fails_untouched(stream: CUstream) {
    end_fails(stream, ERROR_ILLEGAL_STATE, "does not capture");
}

#[test]
fn functions_events_and_graphs_are_nodes() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn count(_: *mut c_void) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let session = Session::new();
    let function = session.function("step");
    let (stream, mark) = (session.stream(1), event());
    let at = session.upload(&[0; 32]);
    unsafe {
        begin(stream, RELAXED);
        ok(step(function, at, 2, 32, stream));
        ok(cuLaunchHostFunc(stream, Some(count), null_mut()));
        ok(cuEventRecordWithFlags(mark, stream, 1));
        ok(cuStreamWaitEvent(stream, mark, 1));
        ok(step(function, at, 2, 32, stream));
        let inner = end(stream);
        assert_eq!(nodes(inner), [0, 3, 7, 6, 0]);
        let inner = instantiate(inner);
        ok(cuEventQuery(mark));

        // A graph launched in a capture becomes part of it.
        begin(stream, RELAXED);
        ok(cuGraphLaunch(inner, stream));
        ok(cuGraphLaunch(inner, stream));
        let outer = end(stream);
        assert_eq!(nodes(outer).len(), 10);
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
        ok(cuGraphLaunch(instantiate(outer), stream));
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);
        assert_eq!(download(at, 32), [15; 32]);
    }
    free(at);
}

#[test]
fn instantiation_checks_its_flags() {
    let session = Session::new();
    let (mut graph, mut exec) = (null_mut(), null_mut());
    unsafe {
        ok(cuGraphCreate(&mut graph, 0));
        assert!(nodes(graph).is_empty());
        for flags in [0, 1, 2, 8, 1 | 8] {
            ok(cuGraphInstantiateWithFlags(&mut exec, graph, flags));
        }
        ok(cuGraphLaunch(exec, session.stream(0)));
        ok(cuGraphInstantiate_v2(&mut exec, graph, null_mut(), null_mut(), 0));
        fails(cuGraphInstantiateWithFlags(&mut exec, graph, 1 | 4), ERROR_INVALID_VALUE, "not together");
        fails(cuGraphInstantiateWithFlags(&mut exec, graph, 16), ERROR_INVALID_VALUE, "0x10");
        fails(cuGraphInstantiateWithFlags(&mut exec, graph, 4), ERROR_NOT_SUPPORTED, "by kernels");
        fails(cuGraphCreate(&mut graph, 1), ERROR_INVALID_VALUE, "flags");
        fails(cuGraphNodeGetType(null_mut(), &mut 0), ERROR_INVALID_HANDLE, "node");
    }
}

/// Illegal launches are refused when they are captured; what goes wrong later, when the graph runs.
#[test]
fn replay_reports_what_went_wrong() {
    let session = Session::new();
    let module = session.module();
    let (function, nothing) = (function_of(module, "step"), function_of(module, "nothing"));
    let stream = session.stream(1);
    let at = session.upload(&[0; 32]);
    begin(stream, RELAXED);
    fails(launch(nothing, 1025, stream, &mut []), ERROR_INVALID_VALUE, "nothing: ");
    ok(step(function, at, 2, 32, stream));
    ok(step(function, at, 2, 32, stream));
    let exec = instantiate(end(stream));
    ok(unsafe { cuGraphLaunch(exec, stream) });
    assert_eq!(download(at, 32), [3; 32]);

    // The buffer goes: the first launch fails, the second is not run, the call succeeds.
    free(at);
    ok(unsafe { cuGraphLaunch(exec, stream) });
    assert_eq!(findings().iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::UseAfterFree]);
    fails(unsafe { cuStreamSynchronize(stream) }, 700, "use after free");
    fails(unsafe { cuGraphLaunch(exec, stream) }, 700, "use after free");
    drop(session);

    let session = Session::new();
    let module = session.module();
    let stream = session.stream(1);
    begin(stream, RELAXED);
    ok(launch(function_of(module, "nothing"), 1, stream, &mut []));
    let exec = instantiate(end(stream));
    ok(unsafe { cuModuleUnload(module) });
    fails(unsafe { cuGraphLaunch(exec, stream) }, ERROR_INVALID_HANDLE, "unloaded");
}
