using System.Text.Json;
using Microsoft.Playwright;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Tests;
using static Microsoft.Playwright.Assertions;

namespace NopeGpt.Browser.Tests;

/// <summary>What reaches an open page while a run works, in a real browser; the trainer is this test.</summary>
public sealed class LiveTests(DashboardFixture fixture) : IClassFixture<DashboardFixture>
{
    private const string Loss = "document.querySelector('[data-title=\"Loss\"]').chartData.series['train/loss']";

    [NeedsFact(Needs.Chromium)]
    public async Task A_chart_takes_events_as_they_come_and_shows_what_the_server_would_give_it()
    {
        const int Before = 40, Steps = 240;
        Store store = new(fixture.Dashboard.Root);
        RunFolder run = NewRun(store);
        await using EventWriter events = new(run, store);
        events.Write(new StartedEvent(1, 0, 1, "test"));
        for (int step = 1; step <= Before; step++) events.Write(Step(step));
        events.Flush();
        await using Window window = await fixture.OpenAsync(1440, 900);
        int readings = 0;
        window.Page.Request += (_, request) => { if (request.Url.Contains("/series?", StringComparison.Ordinal)) Interlocked.Increment(ref readings); };
        await window.Page.GotoAsync($"/runs/{run.Id}");
        await window.Page.WaitForFunctionAsync($"() => {Loss}.x.length === {Before}");
        for (int step = Before + 1; step <= Steps; step++)
        {
            events.Write(step % 100 == 0 ? Step(step, double.NaN) : Step(step));
            if (step % 20 == 0) await window.Page.WaitForFunctionAsync($"() => {Loss}.x.length === {step}");
        }
        JsonElement shown = (await window.Page.EvaluateAsync($"() => ({{ x: {Loss}.x, smoothed: {Loss}.smoothed.map(v => Number.isFinite(v) ? v : null) }})"))!.Value;
        Assert.Equal(Enumerable.Range(1, Steps), shown.GetProperty("x").EnumerateArray().Select(v => (int)v.GetDouble()));
        double?[] expected = await SmoothedAsync(run.Id), got = [.. shown.GetProperty("smoothed").EnumerateArray().Select(v => v.ValueKind == JsonValueKind.Null ? (double?)null : v.GetDouble())];
        Assert.Equal(expected.Length, got.Length);
        for (int i = 0; i < got.Length; i++) Assert.True(expected[i] is null == got[i] is null && Math.Abs((expected[i] ?? 0) - (got[i] ?? 0)) < 1e-3, $"point {i}: {got[i]} instead of {expected[i]}");
        // Ten batches of events and more came: a reading for each would be as many.
        Assert.InRange(readings, 1, 8);
        Assert.Empty(window.Mistakes);
    }

    [NeedsFact(Needs.Chromium)]
    public async Task Who_asks_for_notifications_gets_one_when_a_run_ends_and_a_click_opens_it()
    {
        Store store = new(fixture.Dashboard.Root);
        RunFolder run = NewRun(store);
        await using Window window = await fixture.OpenAsync(1440, 900);
        IPage page = window.Page;
        // The browser of a test shows none, so they are only noted.
        await page.AddInitScriptAsync("""
            window.shown = [];
            window.Notification = class { static permission = "default"; static async requestPermission() { return this.permission = "granted"; }
              constructor(title, options) { this.title = title; this.options = options; shown.push(this); } close() { this.closed = true; } };
            """);
        await page.GotoAsync("/");
        await page.GetByRole(AriaRole.Button, new() { Name = "Notify me when runs end" }).ClickAsync();
        await Expect(page.Locator("[data-notices=on]")).ToHaveCountAsync(1);
        await using (EventWriter events = new(run, store))
        {
            events.Write(new StartedEvent(1, 0, 1, "test"));
            events.Write(new EndedEvent(RunState.Failed, "<b>the reason</b>", Code: ExitCode.Diverged));
            events.Flush();
        }
        run.WriteIdentity(new TrainerIdentity(int.MaxValue, 1));
        await page.WaitForFunctionAsync("() => shown.length === 1");
        Assert.Equal(["live test has diverged", "<b>the reason</b>", $"{run.Id}.1"], await page.EvaluateAsync<string[]>("() => [shown[0].title, shown[0].options.body, shown[0].options.tag]"));
        await page.EvaluateAsync("() => shown[0].onclick()");
        await page.WaitForURLAsync($"**/runs/{run.Id}");
        Assert.True(await page.EvaluateAsync<bool>("() => shown[0].closed"));
        // It is remembered, and can be taken back.
        await page.GetByRole(AriaRole.Button, new() { Name = "Stop notifying me" }).ClickAsync();
        await Expect(page.Locator("[data-notices=off]")).ToHaveCountAsync(1);
        Assert.Empty(window.Mistakes);
    }

    private static RunFolder NewRun(Store store) => RunFolder.Create(store,
        new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], new RunConfig { Kind = RunKind.Pretrain, Name = "live test", Data = new DataConfig { Dataset = "stories" } }));

    private static MetricsEvent Step(long step, double? loss = null) => new(step, 1000, step * 10, null, new Dictionary<string, double> { ["train/loss"] = loss ?? (5 + Math.Sin(step)) });

    private async Task<double?[]> SmoothedAsync(string run)
    {
        using HttpClient http = new();
        byte[] bytes = await http.GetByteArrayAsync($"{fixture.Dashboard.Address}/api/runs/{run}/series?metric=none&metric=train/loss&buckets=1000&smooth=0.6");
        // The first metric has no points.
        Assert.Equal(0, BitConverter.ToInt32(bytes, 0));
        return [.. Enumerable.Range(0, BitConverter.ToInt32(bytes, 4)).Select(i => BitConverter.ToSingle(bytes, 8 + (24 * i) + 20)).Select(v => float.IsFinite(v) ? (double?)v : null)];
    }
}
