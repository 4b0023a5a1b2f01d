using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Training;

/// <summary>Writes checkpoints on a thread of its own, one at a time: training stands still while that thread copies the state, and goes on while it writes
/// the copy. What goes wrong there is thrown at the next call here.</summary>
internal sealed class CheckpointWriter(TimeProvider time) : IDisposable
{
    private Task _writing = Task.CompletedTask;

    /// <summary>Time that training stood still for checkpoints.</summary>
    public TimeSpan Waited { get; private set; }

    /// <summary>Waits until the checkpoint before is written and the state of this one is copied; the rest goes on by itself.</summary>
    /// <param name="ready">Called when nothing is being written any more, before the copy.</param>
    /// <param name="copy">Called on the other thread, so that what it makes is made and freed by one thread.</param>
    /// <param name="write">Gets the copy and the time that training stood still for it.</param>
    public void Begin(Action ready, Func<TrainingState> copy, Action<TrainingState, TimeSpan> write)
    {
        long asked = time.GetTimestamp();
        Finish();
        ready();
        TaskCompletionSource copied = new();
        _writing = Task.Factory.StartNew(() => Work(asked, copied, copy, write), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        try { copied.Task.GetAwaiter().GetResult(); }
        finally { Waited += time.GetElapsedTime(asked); }
    }

    /// <summary>Throws what has gone wrong so far, without waiting.</summary>
    public void Check()
    {
        if (_writing.IsCompleted) Finish();
    }

    /// <summary>Waits for what is being written.</summary>
    public void Finish()
    {
        Task done = _writing;
        try { done.GetAwaiter().GetResult(); }
        // Said once.
        finally { _writing = Task.CompletedTask; }
    }

    /// <summary>Waits for what is being written, so that no process ends in the midst of it. An error is not thrown: whoever wants it calls <see cref="Finish"/>.</summary>
    public void Dispose() => _writing.ContinueWith(_ => { }, TaskScheduler.Default).Wait();

    private void Work(long asked, TaskCompletionSource copied, Func<TrainingState> copy, Action<TrainingState, TimeSpan> write)
    {
        TrainingState state;
        try { state = copy(); }
#pragma warning disable CA1031 // It is thrown where the copy is waited for.
        catch (Exception e)
#pragma warning restore CA1031
        {
            copied.SetException(e);
            return;
        }
        TimeSpan waited = time.GetElapsedTime(asked);
        copied.SetResult();
        using (state) write(state, waited);
    }
}
