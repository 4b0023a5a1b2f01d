using System.Diagnostics;
using NopeGpt.Data;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;
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

    [NeedsFact(Needs.Mount)]
    public async Task A_full_disk_ends_preparing_with_its_exit_code_and_with_more_room_it_goes_on()
    {
        using TemporaryFolder temporary = new();
        using HubServer server = new();
        Store store = new(temporary["root"]);
        BytePairTrainer.Train(["the word of it"], 260).Save(temporary["tokenizer"]);
        string line = $$"""{"text": "{{string.Concat(Enumerable.Range(0, 100).Select(i => $"The {i}th word of it. "))}}"}""";
        await File.WriteAllLinesAsync(temporary["large.jsonl"], Enumerable.Repeat(line, 2500));
        server.Publish("someone/else", new Dictionary<string, byte[]> { ["large.jsonl"] = new byte[6 << 20] });
        PrepareConfig recipe = new() { Source = temporary["large.jsonl"], Tokenizer = temporary["tokenizer"], Dataset = "large", Workers = 1 };
        RunFolder local = New(store, new RunConfig { Kind = RunKind.Prepare, Prepare = recipe }), remote = New(store, new RunConfig { Kind = RunKind.Prepare, Prepare = recipe with { Source = "someone/else", Dataset = "remote" } });
        string disk = temporary["disk"], program = Path.Combine(AppContext.BaseDirectory, "nopegpt");
        string Train(RunFolder run) => $"'{program}' train '{disk}/root/runs/{run.Id}' --root '{disk}/root' --detached || echo $? >> '{temporary["codes"]}'";
        // Room for the first shards, but neither for all nor for the download.
        string script = $"""
            set -e
            mount -t tmpfs -o size=5m tmpfs '{disk}'
            cp -r '{temporary["root"]}' '{disk}/root'
            {Train(remote)}
            cp '{disk}/root/runs/{remote.Id}/events.jsonl' '{temporary["remote"]}'
            {Train(local)}
            cp '{disk}/root/runs/{local.Id}/events.jsonl' '{temporary["full"]}'
            ls -A '{disk}/root/datasets' | grep large > '{temporary["listing"]}'
            mount -o remount,size=60m '{disk}'
            '{program}' train '{disk}/root/runs/{local.Id}' --root '{disk}/root' --detached
            cp '{disk}/root/runs/{local.Id}/events.jsonl' '{temporary["events"]}'
            cp -r '{disk}/root/datasets/large' '{temporary["large"]}'
            """;
        Directory.CreateDirectory(disk);
        ProcessStartInfo start = new("unshare", ["--mount", "bash", "-c", script]);
        start.Environment["NOPEGPT_Hub__Endpoint"] = server.Endpoint.AbsoluteUri;
        using Process shell = Process.Start(start)!;
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(120));
        await shell.WaitForExitAsync(limit.Token);
        Assert.Equal(0, shell.ExitCode);
        Assert.Equal([$"{ExitCode.DiskFull}", $"{ExitCode.DiskFull}"], await File.ReadAllLinesAsync(temporary["codes"]));
        Assert.Contains("is full or cannot be written", Reasons(temporary["full"]).Single(), StringComparison.Ordinal);
        Assert.StartsWith(".large.", Assert.Single(await File.ReadAllLinesAsync(temporary["listing"])), StringComparison.Ordinal);
        Assert.Contains("large.jsonl needs ", Reasons(temporary["remote"]).Single(), StringComparison.Ordinal);
        Assert.Contains("make room", Reasons(temporary["remote"]).Single(), StringComparison.Ordinal);
        Assert.Null(Reasons(temporary["events"])[^1]);
        // What was encoded before the disk was full is not encoded again.
        ProgressEvent second = File.ReadLines(temporary["events"]).Select(RunFolder.ParseEvent).SkipWhile(e => e is not EndedEvent).OfType<ProgressEvent>().First(p => p.BytesPerSecond is not null);
        Assert.True(second.Fraction > 0.5, second.ToString());
        using TokenFile tokens = TokenFile.Open(Path.Combine(temporary["large"], "tokens.bin"));
        tokens.Verify();
        Assert.Equal(2500, tokens.DocumentCount);
    }

    private static string?[] Reasons(string events) => [.. File.ReadLines(events).Select(RunFolder.ParseEvent).OfType<EndedEvent>().Select(e => e.Reason)];

    private static RunFolder New(Store store, RunConfig config) =>
        RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config));
}
