using System.Collections.Concurrent;

namespace NopeGpt.Model.Replicas;

/// <summary>A thread that does what it is given, one after the other.</summary>
internal sealed class Lane : IDisposable
{
    private readonly BlockingCollection<(Action Work, TaskCompletionSource Done)> _queue = [];
    private readonly Thread _thread;

    /// <param name="start">Called first, on the thread.</param>
    public Lane(string name, Action start)
    {
        _thread = new Thread(() =>
        {
            start();
            foreach ((Action work, TaskCompletionSource done) in _queue.GetConsumingEnumerable())
            {
                try
                {
                    work();
                    done.SetResult();
                }
                catch (Exception e) { done.SetException(e); }
            }
        }) { IsBackground = true, Name = name };
        _thread.Start();
    }

    /// <returns>Ends when the work is done, with its exception where it throws.</returns>
    public Task Post(Action work)
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _queue.Add((work, done));
        return done.Task;
    }

    /// <summary>Ends the thread after what it was given.</summary>
    public void Dispose()
    {
        _queue.CompleteAdding();
        _thread.Join();
        _queue.Dispose();
    }
}

/// <summary>Where a number of threads wait for each other, again and again.</summary>
internal sealed class Meeting(int count)
{
    private readonly object _gate = new();
    private int _arrived;
    private long _meetings;
    private bool _cancelled;

    public bool Cancelled => Volatile.Read(ref _cancelled);

    /// <summary>Returns when all have arrived.</summary>
    /// <exception cref="StepCancelledException">The meeting is cancelled.</exception>
    public void Arrive()
    {
        lock (_gate)
        {
            long meeting = _meetings;
            if (_arrived + 1 == count && !_cancelled)
            {
                _arrived = 0;
                _meetings++;
                Monitor.PulseAll(_gate);
                return;
            }
            _arrived++;
            while (meeting == _meetings && !_cancelled) Monitor.Wait(_gate);
            if (meeting == _meetings) throw new StepCancelledException();
        }
    }

    /// <summary>Nobody waits any longer, and nobody will.</summary>
    public void Cancel()
    {
        lock (_gate)
        {
            _cancelled = true;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>After <see cref="Cancel"/>, when every thread has left: they can meet again.</summary>
    public void Reset()
    {
        lock (_gate) (_cancelled, _arrived) = (false, 0);
    }
}

/// <summary>The step ends here because another replica failed, which says why.</summary>
internal sealed class StepCancelledException() : OperationCanceledException("another replica failed");
