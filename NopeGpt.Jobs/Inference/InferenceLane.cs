using System.Collections.Concurrent;
using NopeGpt.Model.Native;

namespace NopeGpt.Jobs.Inference;

/// <summary>The one thread on which libtorch computes replies. Each reply hands in one step at a time, so that replies running side by side
/// take turns token by token; and libtorch keeps one team of worker threads, because it makes one for every thread that calls it.</summary>
internal sealed class InferenceLane : IDisposable
{
    private readonly BlockingCollection<Action> _steps = [];
    private readonly Thread _thread;
    private int _threads;

    public InferenceLane()
    {
        _thread = new Thread(Work) { IsBackground = true, Name = "inference" };
        _thread.Start();
    }

    /// <summary>Runs a step when its turn comes. An exception of the step ends its task, never the lane.</summary>
    public Task<T> RunAsync<T>(Func<T> step)
    {
        TaskCompletionSource<T> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _steps.Add(() =>
        {
            try { done.SetResult(step()); }
#pragma warning disable CA1031 // it is not swallowed: whoever awaits the step gets it
            catch (Exception e) { done.SetException(e); }
#pragma warning restore CA1031
        });
        return done.Task;
    }

    /// <summary>For a step: its operators are shared out to so many CPU threads. libtorch keeps the number for each thread that calls it.</summary>
    public void UseThreads(int threads)
    {
        if (_threads == threads) return;
        TorchRuntime.SetThreads(threads);
        _threads = threads;
    }

    /// <summary>Steps that were handed in still run.</summary>
    public void Dispose()
    {
        _steps.CompleteAdding();
        _thread.Join();
        _steps.Dispose();
    }

    private void Work()
    {
        foreach (Action step in _steps.GetConsumingEnumerable()) step();
    }
}
