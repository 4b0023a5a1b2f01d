using System.Net;
using System.Text.RegularExpressions;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>Buttons of Hangfire's own page, pressed on the jobs of a real dashboard while real trainers work.</summary>
public sealed partial class HangfirePageTests(TrainedStore store) : IClassFixture<TrainedStore>, IDisposable
{
    private readonly TemporaryFolder _root = new();

    public void Dispose() => _root.Dispose();

    [Fact]
    public async Task Requeue_and_Delete_leave_one_execution_that_goes_on()
    {
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);
        string id = await dashboard.AddAsync(store.Config with { Training = store.Config.Training with { MaxSteps = 1_000_000, EvalInterval = 0, CheckpointInterval = 100 } });
        RunFolder run = dashboard.Folder(id);
        await Wait.UntilAsync(() => run.Events().OfType<MetricsEvent>().Any(), "its first step");
        TrainerIdentity trainer = run.ReadIdentity()!;
        string job = Assert.Single(await JobsAsync(dashboard, "processing"));

        await PressAsync(dashboard, "requeue", job);
        await ComesToAsync(dashboard, job, "Succeeded");
        await WorksOnAsync(dashboard, id, trainer);
        // It is given to the worker again.
        await PressAsync(dashboard, "requeue", job);
        await ComesToAsync(dashboard, job, "Succeeded");
        await WorksOnAsync(dashboard, id, trainer);
        await PressAsync(dashboard, "delete", job);
        await ComesToAsync(dashboard, job, "Deleted");
        await PressAsync(dashboard, "requeue", job);
        await ComesToAsync(dashboard, job, "Succeeded");
        await WorksOnAsync(dashboard, id, trainer);

        // And at once while the trainer of another works.
        string other = await dashboard.AddAsync(new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "more", CorpusBytes = 40_000, VocabularySize = 300 } });
        RunFolder prepares = dashboard.Folder(other);
        await Wait.UntilAsync(() => prepares.ReadIdentity() is not null, "its trainer");
        ProcessSignals.Freeze(prepares.ReadIdentity()!.ProcessId);
        string second = Assert.Single(await JobsAsync(dashboard, "processing"));
        await PressAsync(dashboard, "delete", second);
        await ComesToAsync(dashboard, second, "Deleted");
        ProcessSignals.Continue(prepares.ReadIdentity()!.ProcessId);
        await dashboard.UntilAsync(other, RunState.Completed);
        Assert.Single(prepares.Events().OfType<StartedEvent>());

        using HttpResponseMessage stop = await dashboard.Http.PostAsync($"/api/runs/{id}/stop", null);
        await dashboard.UntilAsync(id, RunState.Interrupted);
        Assert.Single(run.Events().OfType<StartedEvent>());
        Assert.Single(run.Events().OfType<EndedEvent>());
    }

    /// <summary>The same trainer of the same attempt is further than it was.</summary>
    private static async Task WorksOnAsync(DashboardProcess dashboard, string id, TrainerIdentity trainer)
    {
        RunFolder run = dashboard.Folder(id);
        long told = run.LastSequence();
        await Wait.UntilAsync(() => run.LastSequence() > told, "its next step");
        Assert.Equal(trainer, run.ReadIdentity());
        Assert.Equal("Running", (await dashboard.RunAsync(id)).GetProperty("state").GetString());
        Assert.Single(run.Events().OfType<StartedEvent>());
    }

    private static async Task PressAsync(DashboardProcess dashboard, string button, string job)
    {
        string page = await dashboard.Http.GetStringAsync($"/hangfire/jobs/details/{job}");
        using HttpRequestMessage press = new(HttpMethod.Post, $"/hangfire/jobs/actions/{button}/{job}");
        press.Headers.Add(Header().Match(page).Groups[1].Value, Token().Match(page).Groups[1].Value);
        using HttpResponseMessage answer = await dashboard.Http.SendAsync(press);
        Assert.Equal(HttpStatusCode.NoContent, answer.StatusCode);
    }

    private static async Task<string[]> JobsAsync(DashboardProcess dashboard, string state) =>
        [.. Job().Matches(await dashboard.Http.GetStringAsync($"/hangfire/jobs/{state}")).Select(m => m.Groups[1].Value).Distinct()];

    private static async Task ComesToAsync(DashboardProcess dashboard, string job, string state)
    {
        for (int look = 0; look < 300; look++)
        {
            if (NewestState().Match(await dashboard.Http.GetStringAsync($"/hangfire/jobs/details/{job}")).Groups[1].Value == state) return;
            await Task.Delay(100);
        }
        Assert.Fail($"the job did not come to {state}: {await dashboard.Http.GetStringAsync($"/hangfire/jobs/details/{job}")}");
    }

    [GeneratedRegex("""csrf-header" content="([^"]+)""")]
    private static partial Regex Header();

    [GeneratedRegex("""csrf-token" content="([^"]+)""")]
    private static partial Regex Token();

    [GeneratedRegex("/hangfire/jobs/details/([0-9a-f-]+)")]
    private static partial Regex Job();

    // The history's first entry.
    [GeneratedRegex("""state-card-title.*?</small>\s*(\w+)""", RegexOptions.Singleline)]
    private static partial Regex NewestState();
}
