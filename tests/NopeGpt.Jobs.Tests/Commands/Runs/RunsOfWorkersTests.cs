using System.Text.Json;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands.Runs;

/// <summary>`nopegpt runs` on a queue in PostgreSQL that workers work off.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class RunsOfWorkersTests(PostgreSqlForTests database) : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [NeedsFact(Needs.PostgreSql)]
    public async Task Commands_and_workers_see_one_queue()
    {
        string connection = await database.NewAsync();
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, connection);
        Dictionary<string, string> settings = new() { ["NOPEGPT_Jobs__Storage"] = "PostgreSql", ["NOPEGPT_Jobs__ConnectionString"] = connection };
        async Task<(int Code, string Output, string Errors)> RunsAsync(params string[] words)
        {
            using NopeGptProcess process = new(settings, ["runs", .. words, "--root", folder.Path]);
            return await process.EndAsync();
        }

        string works = await queue.AddAsync("steps:3000 delay:20"), waits = await queue.AddAsync("steps:1"), first = await queue.AddAsync("steps:2");
        Assert.Equal(ExitCode.Done, (await RunsAsync("hold", waits)).Code);
        queue.Work("worker");
        await queue.UntilAsync(works, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        Assert.Equal(ExitCode.Done, (await RunsAsync("move", first, "top")).Code);
        // What a worker has just claimed is left to it.
        JsonElement list = JsonDocument.Parse((await RunsAsync("list", "--json")).Output).RootElement;
        Assert.Equal([first, waits, works], list.EnumerateArray().Select(r => r.GetProperty("id").GetString()));
        (int code, _, string errors) = await RunsAsync("rebuild");
        Assert.Equal((ExitCode.BadConfiguration, true), (code, errors.Contains("end the workers first", StringComparison.Ordinal)));
        (code, string output, errors) = await RunsAsync("stop", works, "--wait", "--json");
        Assert.True(code == ExitCode.Done, errors);
        Assert.Equal("Interrupted", JsonDocument.Parse(output).RootElement[0].GetProperty("state").GetString());
        await queue.UntilAsync(first, r => r.State == RunState.Completed, "the first in the queue");
        Assert.Equal(RunState.Queued, (await queue.Queue.FindAsync(waits))!.State);
    }
}
