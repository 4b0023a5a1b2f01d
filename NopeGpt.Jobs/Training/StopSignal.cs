using System.Runtime.InteropServices;

namespace NopeGpt.Jobs.Training;

/// <summary>Whether this process was asked to save and end: by SIGTERM, SIGINT, or the run folder's stop file.</summary>
internal sealed class StopSignal : IDisposable
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(200);
    private readonly RunFolder folder;
    private readonly List<PosixSignalRegistration> registrations = [];
    private readonly CancellationTokenSource source;
    private readonly Timer timer;

    public StopSignal(RunFolder folder, CancellationToken cancel)
    {
        this.folder = folder;
        source = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        foreach (PosixSignal signal in new[] { PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP })
        {
            registrations.Add(PosixSignalRegistration.Create(signal, context =>
            {
                // The runtime's own answer would be to exit at once.
                context.Cancel = true;
                source.Cancel();
            }));
        }
        timer = new Timer(_ => Look(), null, TimeSpan.Zero, LookEvery);
    }

    /// <summary>Cancelled when the run shall save and end.</summary>
    public CancellationToken Token => source.Token;

    public bool Asked => source.IsCancellationRequested;

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in registrations) registration.Dispose();
        using ManualResetEvent stopped = new(false);
        if (timer.Dispose(stopped)) stopped.WaitOne();
        source.Dispose();
    }

    private void Look()
    {
        if (!source.IsCancellationRequested && folder.ReadStop() != StopRequest.None) source.Cancel();
    }
}
