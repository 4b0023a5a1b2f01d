using System.Diagnostics;
using TorchSharp;

namespace NopeGpt.Model.Kernels;

/// <summary>The threads that share out one kernel of ours. The caller works too and waits only for parts that a helper has begun, so that a
/// helper that is slow to wake costs nothing. Between two kernels a helper spins for as long as the small operators of a decoding step
/// take, and then sleeps (docs/experiments.md).</summary>
internal static class Crew
{
    private static readonly long SpinTicks = Stopwatch.Frequency * 50 / 1_000_000;
    private static readonly Lock Posting = new();
    private static readonly object Sleep = new();
    private static int _helpers;
    private static int sleeping;
    private static volatile int posted;
    private static volatile Job? current;

    /// <summary>Does the parts 0 to count - 1 in any order, on as many threads as libtorch's operators have. The work must not throw.
    /// While another thread has the crew, the caller does them alone.</summary>
    public static void Run(int count, Action<int> work)
    {
        int wanted = Math.Min(torch.get_num_threads(), count) - 1;
        if (wanted <= 0 || !Posting.TryEnter())
        {
            for (int i = 0; i < count; i++) work(i);
            return;
        }
        try
        {
            while (_helpers < wanted) Start(++_helpers);
            Job job = new(work, count, wanted);
            current = job;
            Interlocked.Increment(ref posted);
            if (Volatile.Read(ref sleeping) > 0)
                lock (Sleep) Monitor.PulseAll(Sleep);
            job.Work();
            job.Wait();
            current = null;
        }
        finally { Posting.Exit(); }
    }

    private static void Start(int number) => new Thread(Help) { IsBackground = true, Name = $"kernel helper {number}" }.Start();

    private static void Help()
    {
        int seen = 0;
        while (true)
        {
            Await(ref seen);
            if (current is { } job && job.Join()) job.Work();
        }
    }

    /// <summary>Returns when another job was posted than the one seen.</summary>
    private static void Await(ref int seen)
    {
        long start = Stopwatch.GetTimestamp();
        SpinWait spin = default;
        while (posted == seen && Stopwatch.GetTimestamp() - start < SpinTicks) spin.SpinOnce(sleep1Threshold: -1);
        if (posted == seen)
        {
            lock (Sleep)
            {
                Interlocked.Increment(ref sleeping);
                while (posted == seen) Monitor.Wait(Sleep);
                Interlocked.Decrement(ref sleeping);
            }
        }
        seen = posted;
    }

    private sealed class Job(Action<int> work, int count, int places)
    {
        private readonly int _count = count;
        private int _joined;
        private int _next;
        private int _left = count;

        public bool Join() => Interlocked.Increment(ref _joined) <= places;

        public void Work()
        {
            for (int i = Interlocked.Increment(ref _next) - 1; i < _count; i = Interlocked.Increment(ref _next) - 1)
            {
                work(i);
                Interlocked.Decrement(ref _left);
            }
        }

        public void Wait()
        {
            SpinWait spin = default;
            while (Volatile.Read(ref _left) > 0) spin.SpinOnce(sleep1Threshold: -1);
        }
    }
}
