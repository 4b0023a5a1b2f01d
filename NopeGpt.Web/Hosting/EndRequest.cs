using System.Runtime.InteropServices;

namespace NopeGpt.Web.Hosting;

/// <summary>Whether this process was asked to end, by SIGTERM or SIGINT: from the first line of the program to the last, while the host itself
/// listens only between the beginning of its start and its end.</summary>
internal static class EndRequest
{
    private static readonly CancellationTokenSource _source = new();

    // Held as long as the process lives: what is collected listens no more, and the runtime's own answer to a signal is to exit at once.
    private static readonly List<PosixSignalRegistration> _registrations = [];

    public static CancellationToken Listen()
    {
        foreach (PosixSignal signal in new[] { PosixSignal.SIGTERM, PosixSignal.SIGINT })
        {
            _registrations.Add(PosixSignalRegistration.Create(signal, context =>
            {
                context.Cancel = true;
                _source.Cancel();
            }));
        }
        return _source.Token;
    }
}
