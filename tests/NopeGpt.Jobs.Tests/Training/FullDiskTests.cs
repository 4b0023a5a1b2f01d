using System.Diagnostics;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Tests.Training;

/// <summary>A disk that is really full: a tmpfs of a few megabytes, in a mount namespace of the test's own.</summary>
public sealed class FullDiskTests
{
    [NeedsTheory(Needs.Mount)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_full_disk_ends_a_run_with_its_exit_code_and_keeps_the_last_checkpoint(bool detached)
    {
        using TemporaryFolder temporary = new();
        Store store = new(temporary["root"]);
        RunFolder prepare = New(store, new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 120_000, VocabularySize = 400, Dataset = "small" } });
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(prepare.Path, store, false, null, default));
        RunFolder run = New(store, PreparedStore.Small(4000) with { Training = PreparedStore.Small(4000).Training with { CheckpointInterval = 20, KeepCheckpoints = 1000 } });
        // The store is copied onto the small disk; training fills it with checkpoints until one does not fit.
        string script = $"""
            set -e
            mount -t tmpfs -o size=5m tmpfs '{temporary["disk"]}'
            cp -r '{temporary["root"]}' '{temporary["disk"]}/root'
            code=0
            '{Path.Combine(AppContext.BaseDirectory, "nopegpt")}' train '{temporary["disk"]}/root/runs/{run.Id}' --root '{temporary["disk"]}/root' {(detached ? "--detached" : "")} >/dev/null 2>&1 || code=$?
            ls -A '{temporary["disk"]}/root/runs/{run.Id}/checkpoints' > '{temporary["listing"]}'
            cp '{temporary["disk"]}/root/runs/{run.Id}/events.jsonl' '{temporary["events"]}'
            exit $code
            """;
        Directory.CreateDirectory(temporary["disk"]);
        using Process shell = Process.Start(new ProcessStartInfo("unshare", ["--mount", "bash", "-c", script]))!;
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(120));
        await shell.WaitForExitAsync(limit.Token);
        Assert.Equal(ExitCode.DiskFull, shell.ExitCode);
        string[] checkpoints = await File.ReadAllLinesAsync(temporary["listing"]);
        Assert.NotEmpty(checkpoints);
        Assert.All(checkpoints, name => Assert.StartsWith("step-", name, StringComparison.Ordinal));
        string[] events = await File.ReadAllLinesAsync(temporary["events"]);
        Assert.All(events, line => Assert.NotNull(RunFolder.ParseEvent(line)));
    }

    private static RunFolder New(Store store, RunConfig config) =>
        RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config));
}
