using System.Diagnostics;
using System.Globalization;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>Two dashboards that are started on one store at the same instant.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class TwoDashboardsTests : IDisposable
{
    private const int Pairs = 10;
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Of_two_that_start_at_the_same_instant_one_works_and_the_other_names_it_and_ends()
    {
        // Of a dashboard that is long gone, and whose number the system has given to another process since.
        await File.WriteAllTextAsync(folder["dashboard.pid"], Environment.ProcessId + "\n");
        for (int pair = 0; pair < Pairs; pair++)
        {
            Process[] both = [Start(), Start()];
            try
            {
                Process loser = await await Task.WhenAny(both.Select(EndAsync));
                Process winner = both.Single(p => p != loser);
                string said = await loser.StandardError.ReadToEndAsync();
                Assert.Equal(ExitCode.BadConfiguration, loser.ExitCode);
                Assert.Equal($"another dashboard (process {winner.Id.ToString(CultureInfo.InvariantCulture)}) works on {folder.Path}: close it first, or name another folder with Storage:Root", said.Trim());
                await WaitFor.TrueAsync(() => File.Exists(folder["ready"]), "the first one's start");
                File.Delete(folder["ready"]);
                Assert.False(winner.HasExited);
                ProcessSignals.Terminate(winner.Id);
                await EndAsync(winner);
                Assert.Equal(("", ExitCode.Done), (await winner.StandardError.ReadToEndAsync(), winner.ExitCode));
            }
            finally
            {
                foreach (Process one in both)
                {
                    if (!one.HasExited) one.Kill();
                    one.Dispose();
                }
            }
        }
    }

    private Process Start() => Process.Start(new ProcessStartInfo(QueueHarness.DummyPath, ["dashboard", folder.Path, "Ready=" + folder["ready"]]) { RedirectStandardError = true })!;

    private static async Task<Process> EndAsync(Process process)
    {
        await process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));
        return process;
    }
}
