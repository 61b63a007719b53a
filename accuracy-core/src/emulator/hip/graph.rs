//! Graphs, built node by node or captured from streams. A graph runs node after node, in an order that its edges
//! allow.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{Dim3, In, Out, calls};
use super::launch;
use super::memory;
use super::operation::{Copy, Fill, HostCall, Operation, Pattern, Place, Size};
use super::problem::{Failure, HandleKind, What};
use super::runtime::{Runtime, State};
use super::status::Status;
use std::ffi::c_void;

/// A graph, or a copy of one that can be launched.
#[derive(Clone, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
}

#[derive(Clone)]
pub(super) struct Node {
    pub handle: usize,
    pub operation: Operation,
    /// Nodes that run before it.
    pub after: Vec<usize>,
}

/// A capture under way.
pub(super) struct Capture {
    pub graph: Graph,
    /// The handle that the graph gets.
    pub handle: usize,
    /// The number that callers tell captures apart by.
    pub id: u64,
    /// Streams that joined by waiting for an event of the capture, and the one that it began on.
    pub streams: Vec<usize>,
}

impl Graph {
    /// The nodes in an order that the edges allow; as they were added where that is one.
    fn ordered(&self) -> Result<Graph, Failure> {
        let mut left: Vec<&Node> = self.nodes.iter().collect();
        let mut done: Vec<Node> = Vec::new();
        while !left.is_empty() {
            let ready = left
                .iter()
                .position(|node| node.after.iter().all(|before| !left.iter().any(|n| n.handle == *before)))
                // A circle.
                .ok_or(Status::InvalidValue)?;
            done.push(left.remove(ready).clone());
        }
        Ok(Graph { nodes: done })
    }

    fn node(&mut self, handle: usize) -> Result<&mut Node, Failure> {
        self.nodes
            .iter_mut()
            .find(|node| node.handle == handle)
            .ok_or_else(|| Failure::handle(HandleKind::GraphNode, handle))
    }
}

impl State {
    pub fn graph(&mut self, handle: usize) -> Result<&mut Graph, Failure> {
        self.graphs.get_mut(&handle).ok_or_else(|| Failure::handle(HandleKind::Graph, handle))
    }

    fn exec(&mut self, handle: usize) -> Result<&mut Graph, Failure> {
        self.graph_execs.get_mut(&handle).ok_or_else(|| Failure::handle(HandleKind::GraphExec, handle))
    }

    fn add_node(&mut self, graph: usize, operation: Operation, after: &[usize]) -> Result<usize, Failure> {
        let handle = self.handle();
        let nodes = &mut self.graph(graph)?.nodes;
        if let Some(&unknown) = after.iter().find(|before| !nodes.iter().any(|n| n.handle == **before)) {
            return Err(Failure::handle(HandleKind::GraphNode, unknown));
        }
        nodes.push(Node { handle, operation, after: after.to_vec() });
        self.nodes.insert(handle, graph);
        Ok(handle)
    }

    /// The graph that a node belongs to.
    fn graph_of(&mut self, node: usize) -> Result<&mut Graph, Failure> {
        let graph = *self.nodes.get(&node).ok_or_else(|| Failure::handle(HandleKind::GraphNode, node))?;
        self.graph(graph)
    }

    pub fn capture_of(&mut self, stream: usize) -> Option<&mut Capture> {
        self.captures.values_mut().find(|capture| capture.streams.contains(&stream))
    }
}

impl Runtime {
    /// Adds an operation to the capture of its stream, or gives it back where there is none.
    pub fn capture(&self, stream: usize, operation: Operation) -> Result<Option<Operation>, Failure> {
        let mut state = self.state();
        if state.captures.is_empty() {
            return Ok(Some(operation));
        }
        if let Operation::Wait { event } = operation {
            let origin = state.events.get(&event).and_then(|event| event.capture);
            if let Some(capture) = origin.and_then(|origin| state.captures.get_mut(&origin))
                && !capture.streams.contains(&stream)
            {
                capture.streams.push(stream);
                return Ok(None);
            }
        }
        let node = state.handle();
        let Some(capture) = state.capture_of(stream) else { return Ok(Some(operation)) };
        let origin = capture.streams.first().copied();
        match operation {
            Operation::Record { event } => {
                if let Some(event) = state.events.get_mut(&event) {
                    event.capture = origin;
                }
            }
            Operation::Wait { .. } => {}
            operation => {
                let after = capture.graph.nodes.last().map(|last| last.handle).into_iter().collect();
                capture.graph.nodes.push(Node { handle: node, operation, after });
            }
        }
        Ok(None)
    }

    pub fn perform_graph(&self, graph: &Graph, call: &'static str) -> Result<(), Failure> {
        graph.nodes.iter().try_for_each(|node| self.perform(&node.operation, call))
    }

    fn add_node(
        &self,
        out: Out<usize>,
        graph: usize,
        operation: Operation,
        dependencies: (In<usize>, usize),
    ) -> Result<(), Failure> {
        let after = dependencies.0.array(dependencies.1)?;
        let node = self.state().add_node(graph, operation, &after)?;
        out.put(node)
    }
}

/// `hipKernelNodeParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelNode {
    block: Dim3,
    extra: In<usize>,
    function: usize,
    grid: Dim3,
    arguments: In<usize>,
    shared: u32,
}

/// `hipMemsetParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemsetNode {
    to: usize,
    element: u32,
    height: usize,
    pitch: usize,
    value: u32,
    width: usize,
}

/// `hipHostNodeParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct HostNode {
    function: Option<extern "C" fn(*mut c_void)>,
    data: usize,
}

fn kernel_operation(runtime: &Runtime, node: KernelNode) -> Result<Operation, Failure> {
    let function = runtime.any_function(node.function)?;
    let arguments = launch::arguments(&function.info, node.arguments, node.extra)?;
    let launch = launch::whole(function, node.grid.into(), node.block.into(), node.shared, arguments);
    runtime.check_shape(&launch)?;
    Ok(Operation::Launch(launch))
}

fn memset_operation(node: MemsetNode) -> Result<Operation, Failure> {
    let element = node.element as usize;
    if !matches!(element, 1 | 2 | 4) {
        return Err(Status::InvalidValue.into());
    }
    let row = node.width.checked_mul(element).ok_or(Status::InvalidValue)?;
    Ok(Operation::Fill(Fill {
        to: Place { address: node.to, pitch: node.pitch, plane: 0 },
        pattern: Pattern::of(node.value, element),
        size: Size { row, rows: node.height.max(1), planes: 1 },
    }))
}

fn host_operation(node: HostNode) -> Result<Operation, Failure> {
    let function = node.function.ok_or(Status::InvalidValue)?;
    Ok(Operation::Host(HostCall { function, data: node.data }))
}

/// `hipGraphNodeType`.
fn node_type(operation: &Operation) -> i32 {
    match operation {
        Operation::Launch(_) => 0,
        Operation::Copy(_) => 1,
        Operation::Fill(_) => 2,
        Operation::Host(_) => 3,
        Operation::Child(_) => 4,
        Operation::Empty => 5,
        Operation::Wait { .. } => 6,
        Operation::Record { .. } => 7,
    }
}

/// Puts as many handles into an array as it has room for, or their number where there is no array.
fn list(found: &[usize], array: Out<usize>, count: Out<usize>) -> Result<(), Failure> {
    if array.address() == 0 {
        return count.put(found.len());
    }
    let room = In::<usize>::from(count).get()?;
    for (i, handle) in found.iter().take(room).enumerate() {
        array.put_at(i, *handle)?;
    }
    for i in found.len()..room {
        array.put_at(i, 0)?;
    }
    count.put(found.len().min(room))
}

calls! { entries, Fails, runtime;
    hipGraphCreate(graph: Out<usize>, flags: u32) {
        if flags != 0 {
            return Err(Status::InvalidValue.into());
        }
        let mut state = runtime.state();
        let handle = state.handle();
        state.graphs.insert(handle, Graph::default());
        graph.put(handle)
    }
    hipGraphDestroy(graph: usize) {
        let mut state = runtime.state();
        let removed = state.graphs.remove(&graph).ok_or_else(|| Failure::handle(HandleKind::Graph, graph))?;
        removed.nodes.iter().for_each(|node| { state.nodes.remove(&node.handle); });
        Ok(())
    }
    hipGraphClone(clone: Out<usize>, graph: usize) {
        let mut state = runtime.state();
        let mut copy = state.graph(graph)?.clone();
        let handle = state.handle();
        let mut renamed = std::collections::HashMap::new();
        for node in &mut copy.nodes {
            let new = state.handle();
            renamed.insert(std::mem::replace(&mut node.handle, new), new);
            state.nodes.insert(new, handle);
        }
        for before in copy.nodes.iter_mut().flat_map(|node| &mut node.after) {
            *before = renamed.get(before).copied().unwrap_or(*before);
        }
        state.graphs.insert(handle, copy);
        clone.put(handle)
    }
    hipGraphAddKernelNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, params: In<KernelNode>) {
        let operation = kernel_operation(runtime, params.get()?)?;
        runtime.add_node(node, graph, operation, (after, count))
    }
    hipGraphAddMemcpyNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, params: In<memory::Copy3D>) {
        let copy = params.get()?.copy()?;
        runtime.add_node(node, graph, Operation::Copy(copy), (after, count))
    }
    hipGraphAddMemcpyNode1D(
        node: Out<usize>, graph: usize, after: In<usize>, count: usize, to: usize, from: usize, bytes: usize, kind: i32,
    ) {
        let direction = memory::direction(kind)?;
        let copy = Copy { to: Place::line(to), from: Place::line(from), size: Size::line(bytes), direction };
        runtime.add_node(node, graph, Operation::Copy(copy), (after, count))
    }
    hipGraphAddMemsetNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, params: In<MemsetNode>) {
        let operation = memset_operation(params.get()?)?;
        runtime.add_node(node, graph, operation, (after, count))
    }
    hipGraphAddHostNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, params: In<HostNode>) {
        let operation = host_operation(params.get()?)?;
        runtime.add_node(node, graph, operation, (after, count))
    }
    hipGraphAddEmptyNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize) {
        runtime.add_node(node, graph, Operation::Empty, (after, count))
    }
    hipGraphAddChildGraphNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, child: usize) {
        let child = runtime.state().graph(child)?.ordered()?;
        runtime.add_node(node, graph, Operation::Child(child), (after, count))
    }
    hipGraphAddEventRecordNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, event: usize) {
        runtime.add_node(node, graph, Operation::Record { event }, (after, count))
    }
    hipGraphAddEventWaitNode(node: Out<usize>, graph: usize, after: In<usize>, count: usize, event: usize) {
        runtime.add_node(node, graph, Operation::Wait { event }, (after, count))
    }
    hipGraphAddDependencies(graph: usize, from: In<usize>, to: In<usize>, count: usize) {
        let (from, to) = (from.array(count)?, to.array(count)?);
        let mut state = runtime.state();
        let graph = state.graph(graph)?;
        for (from, to) in from.into_iter().zip(to) {
            graph.node(from)?;
            graph.node(to)?.after.push(from);
        }
        Ok(())
    }
    hipGraphRemoveDependencies(graph: usize, from: In<usize>, to: In<usize>, count: usize) {
        let (from, to) = (from.array(count)?, to.array(count)?);
        let mut state = runtime.state();
        let graph = state.graph(graph)?;
        for (from, to) in from.into_iter().zip(to) {
            graph.node(to)?.after.retain(|before| *before != from);
        }
        Ok(())
    }
    hipGraphDestroyNode(node: usize) {
        let mut state = runtime.state();
        let graph = state.graph_of(node)?;
        graph.nodes.retain(|n| n.handle != node);
        graph.nodes.iter_mut().for_each(|n| n.after.retain(|before| *before != node));
        state.nodes.remove(&node);
        Ok(())
    }
    hipGraphNodeGetType(node: usize, kind: Out<i32>) {
        let mut state = runtime.state();
        kind.put(node_type(&state.graph_of(node)?.node(node)?.operation))
    }
    hipGraphGetNodes(graph: usize, nodes: Out<usize>, count: Out<usize>) {
        let found: Vec<usize> = runtime.state().graph(graph)?.nodes.iter().map(|node| node.handle).collect();
        list(&found, nodes, count)
    }
    hipGraphGetRootNodes(graph: usize, nodes: Out<usize>, count: Out<usize>) {
        let mut state = runtime.state();
        let roots = state.graph(graph)?.nodes.iter().filter(|node| node.after.is_empty());
        let found: Vec<usize> = roots.map(|node| node.handle).collect();
        list(&found, nodes, count)
    }
    hipGraphNodeGetDependencies(node: usize, nodes: Out<usize>, count: Out<usize>) {
        let found = runtime.state().graph_of(node)?.node(node)?.after.clone();
        list(&found, nodes, count)
    }
    hipGraphKernelNodeSetParams(node: usize, params: In<KernelNode>) {
        let operation = kernel_operation(runtime, params.get()?)?;
        runtime.state().graph_of(node)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphMemsetNodeSetParams(node: usize, params: In<MemsetNode>) {
        let operation = memset_operation(params.get()?)?;
        runtime.state().graph_of(node)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphMemcpyNodeSetParams(node: usize, params: In<memory::Copy3D>) {
        let operation = Operation::Copy(params.get()?.copy()?);
        runtime.state().graph_of(node)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphHostNodeSetParams(node: usize, params: In<HostNode>) {
        let operation = host_operation(params.get()?)?;
        runtime.state().graph_of(node)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphExecKernelNodeSetParams(exec: usize, node: usize, params: In<KernelNode>) {
        let operation = kernel_operation(runtime, params.get()?)?;
        runtime.state().exec(exec)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphExecMemsetNodeSetParams(exec: usize, node: usize, params: In<MemsetNode>) {
        let operation = memset_operation(params.get()?)?;
        runtime.state().exec(exec)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphExecMemcpyNodeSetParams(exec: usize, node: usize, params: In<memory::Copy3D>) {
        let operation = Operation::Copy(params.get()?.copy()?);
        runtime.state().exec(exec)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphExecHostNodeSetParams(exec: usize, node: usize, params: In<HostNode>) {
        let operation = host_operation(params.get()?)?;
        runtime.state().exec(exec)?.node(node)?.operation = operation;
        Ok(())
    }
    hipGraphInstantiate(exec: Out<usize>, graph: usize, node: Out<usize>, log: Out<u8>, log_bytes: usize) {
        node.offer(0);
        if log_bytes > 0 {
            log.offer(0);
        }
        instantiate(runtime, exec, graph)
    }
    hipGraphInstantiateWithFlags(exec: Out<usize>, graph: usize, _flags: u64) {
        instantiate(runtime, exec, graph)
    }
    hipGraphExecUpdate(exec: usize, graph: usize, node: Out<usize>, result: Out<i32>) {
        /// `hipGraphExecUpdateErrorTopologyChanged`.
        const TOPOLOGY_CHANGED: i32 = 2;
        node.offer(0);
        let mut state = runtime.state();
        let new = state.graph(graph)?.ordered()?;
        let old = state.exec(exec)?;
        let kinds = |graph: &Graph| graph.nodes.iter().map(|n| node_type(&n.operation)).collect::<Vec<_>>();
        if kinds(&new) != kinds(old) {
            result.offer(TOPOLOGY_CHANGED);
            return Err(Status::GraphExecUpdateFailure.into());
        }
        for (old, new) in old.nodes.iter_mut().zip(new.nodes) {
            old.operation = new.operation;
        }
        result.offer(0);
        Ok(())
    }
    hipGraphExecDestroy(exec: usize) {
        let removed = runtime.state().graph_execs.remove(&exec);
        removed.map(drop).ok_or_else(|| Failure::handle(HandleKind::GraphExec, exec))
    }
    hipGraphUpload(exec: usize, stream: usize) {
        runtime.stream(stream)?;
        runtime.state().exec(exec).map(drop)
    }
    hipGraphLaunch = "hipGraphLaunch_spt" (exec: usize, stream: usize) {
        let stream = runtime.stream(stream)?;
        let graph = runtime.state().exec(exec)?.clone();
        runtime.submit(stream, Operation::Child(graph), "hipGraphLaunch")
    }
    hipStreamBeginCapture = "hipStreamBeginCapture_spt" (stream: usize, mode: u32) {
        let stream = runtime.stream(stream)?;
        let mut state = runtime.state();
        if stream == 0 {
            return Err(Status::StreamCaptureUnsupported.into());
        }
        if mode > 2 {
            return Err(Status::InvalidValue.into());
        }
        if state.capture_of(stream).is_some() {
            return Err(Status::IllegalState.into());
        }
        let handle = state.handle();
        let capture = Capture { graph: Graph::default(), handle, id: handle as u64, streams: vec![stream] };
        state.captures.insert(stream, capture);
        Ok(())
    }
    hipStreamEndCapture = "hipStreamEndCapture_spt" (stream: usize, graph: Out<usize>) {
        let stream = runtime.stream(stream)?;
        let mut state = runtime.state();
        let Some(capture) = state.captures.remove(&stream) else {
            let joined = state.capture_of(stream).is_some();
            let status = if joined { Status::StreamCaptureUnmatched } else { Status::IllegalState };
            return Err(status.into());
        };
        for event in state.events.values_mut().filter(|event| event.capture == Some(stream)) {
            event.capture = None;
        }
        capture.graph.nodes.iter().for_each(|node| { state.nodes.insert(node.handle, capture.handle); });
        state.graphs.insert(capture.handle, capture.graph);
        graph.put(capture.handle)
    }
    hipStreamIsCapturing = "hipStreamIsCapturing_spt" (stream: usize, status: Out<u32>) {
        let stream = runtime.stream(stream)?;
        let active = runtime.state().capture_of(stream).is_some();
        status.put(u32::from(active))
    }
    hipStreamGetCaptureInfo = "hipStreamGetCaptureInfo_spt" (stream: usize, status: Out<u32>, id: Out<u64>) {
        let stream = runtime.stream(stream)?;
        let found = runtime.state().capture_of(stream).map(|capture| capture.id);
        id.offer(found.unwrap_or(0));
        status.put(u32::from(found.is_some()))
    }
    hipStreamGetCaptureInfo_v2 = "hipStreamGetCaptureInfo_v2_spt" (
        stream: usize, status: Out<u32>, id: Out<u64>, graph: Out<usize>, after: Out<usize>, count: Out<usize>,
    ) {
        let stream = runtime.stream(stream)?;
        let found = runtime.state().capture_of(stream).map(|capture| capture.id);
        if found.is_some() && [graph.address(), after.address(), count.address()].iter().any(|out| *out != 0) {
            let what = What::UnemulatedUse { what: "the graph or the dependencies of a capture under way" };
            return Err(Failure::new(Status::NotSupported, what));
        }
        count.offer(0);
        id.offer(found.unwrap_or(0));
        status.put(u32::from(found.is_some()))
    }
    hipThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        use std::cell::Cell;
        thread_local! {
            static MODE: Cell<u32> = const { Cell::new(0) };
        }
        let new = In::<u32>::from(mode).get()?;
        if new > 2 {
            return Err(Status::InvalidValue.into());
        }
        mode.put(MODE.replace(new))
    }
}

fn instantiate(runtime: &Runtime, exec: Out<usize>, graph: usize) -> Result<(), Failure> {
    let mut state = runtime.state();
    let ready = state.graph(graph)?.ordered()?;
    let handle = state.handle();
    state.graph_execs.insert(handle, ready);
    exec.put(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler has them with HIP 5.2's headers.
    #[test]
    fn structures_of_nodes_lie_as_the_headers_have_them() {
        assert_eq!((size_of::<KernelNode>(), size_of::<MemsetNode>(), size_of::<HostNode>()), (64, 48, 16));
        assert_eq!(offset_of!(KernelNode, extra), 16);
        assert_eq!(offset_of!(KernelNode, function), 24);
        assert_eq!(offset_of!(KernelNode, grid), 32);
        assert_eq!(offset_of!(KernelNode, arguments), 48);
        assert_eq!(offset_of!(KernelNode, shared), 56);
        assert_eq!(offset_of!(MemsetNode, element), 8);
        assert_eq!(offset_of!(MemsetNode, height), 16);
        assert_eq!(offset_of!(MemsetNode, pitch), 24);
        assert_eq!(offset_of!(MemsetNode, value), 32);
        assert_eq!(offset_of!(MemsetNode, width), 40);
    }
}
