using System.Collections.Concurrent;
using Microsoft.AspNetCore.SignalR;
using Microsoft.AspNetCore.SignalR.Client;
using NopeGpt.Jobs;
using NopeGpt.Web.Live;
using NopeGpt.Web.Tests.Api;

namespace NopeGpt.Web.Tests.Live;

[Collection("dashboard")]
public sealed class TrainingHubTests(DashboardFixture dashboard)
{
    private readonly Scribe _run = new(dashboard.Store);

    [Fact]
    public async Task What_a_trainer_publishes_reaches_the_browsers_that_follow_it()
    {
        _run.Write(new StartedEvent(1, 0, 42, "cpu"), Scribe.Step(1, 5));
        await using HubConnection trainer = await ConnectAsync(dashboard.Key), browser = await ConnectAsync(), other = await ConnectAsync();
        ConcurrentQueue<TrainingEvent> seen = Listen(browser), elsewhere = Listen(other);
        TrainingEvent[] before = await browser.InvokeAsync<TrainingEvent[]>("Follow", _run.Id, 1L);
        Assert.Equal(5, Assert.IsType<MetricsEvent>(Assert.Single(before)).Values["train/loss"]);

        // Not in the file: so it can only have come through the hub.
        TrainingEvent[] sent = _run.Number(Scribe.Step(2, 4), Scribe.Step(3, double.NaN), new SampleEvent(3, "Once", " \u00fcpon"));
        Assert.Equal(5, await trainer.InvokeAsync<long>("Publish", _run.Id, sent));
        await Wait.UntilAsync(() => seen.Count == 3, "the three events");
        Assert.Equal([3L, 4, 5], seen.Select(e => e.Sequence));
        Assert.True(double.IsNaN(((MetricsEvent)seen.ElementAt(1)).Values["train/loss"]));
        Assert.Equal(" \u00fcpon", ((SampleEvent)seen.Last()).Text);
        Assert.Empty(elsewhere);
        RunSnapshot told = dashboard.Service<RunFeed>().Snapshot(_run.Id);
        Assert.Equal((5, 3), (told.Sequence, told.Step));
    }

    [Fact]
    public async Task A_browser_that_comes_back_asks_from_where_it_was()
    {
        await using (HubConnection browser = await ConnectAsync()) await browser.InvokeAsync<TrainingEvent[]>("Follow", _run.Id, 0L);
        _run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4), Scribe.Step(3, 3));
        await using HubConnection again = await ConnectAsync();
        Assert.Equal([2L, 3], (await again.InvokeAsync<TrainingEvent[]>("Follow", _run.Id, 1L)).Select(e => e.Sequence));
    }

    [Fact]
    public async Task A_batch_after_a_gap_brings_the_missing_events_from_the_file_and_repeats_are_dropped()
    {
        await using HubConnection trainer = await ConnectAsync(dashboard.Key), browser = await ConnectAsync();
        ConcurrentQueue<TrainingEvent> seen = Listen(browser);
        await browser.InvokeAsync<TrainingEvent[]>("Follow", _run.Id, 0L);
        TrainingEvent[] first = _run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4));
        TrainingEvent[] next = _run.Number(Scribe.Step(3, 3));
        await trainer.InvokeAsync<long>("Publish", _run.Id, next);
        await trainer.InvokeAsync<long>("Publish", _run.Id, (TrainingEvent[])[.. first, .. next]);
        await Wait.UntilAsync(() => seen.Count >= 3, "three events");
        Assert.Equal([1L, 2, 3], seen.Select(e => e.Sequence));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("0000000000000000000000000000000000000000000000000000000000000000")]
    public async Task Without_the_key_nothing_is_taken(string? key)
    {
        dashboard.Service<RunFeed>().Snapshot(_run.Id);
        await using HubConnection stranger = await ConnectAsync(key);
        HubException refused = await Assert.ThrowsAsync<HubException>(() => stranger.InvokeAsync<long>("Publish", _run.Id, _run.Number(Scribe.Step(1, 5))));
        Assert.Contains("dashboard.json", refused.Message, StringComparison.Ordinal);
        Assert.Equal(0, dashboard.Service<RunFeed>().Snapshot(_run.Id).Sequence);
    }

    [Fact]
    public async Task Who_has_unfollowed_hears_no_more()
    {
        await using HubConnection browser = await ConnectAsync(), other = await ConnectAsync();
        ConcurrentQueue<TrainingEvent> seen = Listen(browser), elsewhere = Listen(other);
        foreach (HubConnection one in new[] { browser, other }) await one.InvokeAsync<TrainingEvent[]>("Follow", _run.Id, 0L);
        await browser.InvokeAsync("Unfollow", _run.Id);
        _run.Write(Scribe.Step(1, 5));
        await Wait.UntilAsync(() => elsewhere.Count == 1, "the event at the one that still follows");
        Assert.Empty(seen);
    }

    private async Task<HubConnection> ConnectAsync(string? key = null)
    {
        HubConnection hub = dashboard.Hub(key);
        await hub.StartAsync();
        return hub;
    }

    private static ConcurrentQueue<TrainingEvent> Listen(HubConnection hub)
    {
        ConcurrentQueue<TrainingEvent> seen = [];
        hub.On<string, TrainingEvent[]>("Events", (_, events) => { foreach (TrainingEvent one in events) seen.Enqueue(one); });
        return seen;
    }
}
