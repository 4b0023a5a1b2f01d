using Bunit;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Components.Pages;

namespace NopeGpt.Web.Tests.Pages;

public sealed class OverviewTests
{
    [Fact]
    public async Task An_empty_store_offers_to_train_a_first_model_and_one_click_queues_the_three_runs()
    {
        await using PageHost host = await PageHost.StartAsync();
        host.Open("/?size=tiny");
        IRenderedComponent<Overview> page = host.Page.Render<Overview>();
        page.WaitForAssertion(() => Assert.Equal("Train your first model", page.Find("h1").TextContent));
        Assert.Contains("About five minutes", page.Markup, StringComparison.Ordinal);

        await page.Find("button.go").ClickAsync(new());

        page.WaitForAssertion(() => Assert.Equal(["Prepare", "Pretrain", "Evaluate"], page.FindAll("[data-kind]").Select(e => e.GetAttribute("data-kind"))));
        IReadOnlyList<RunRow> runs = await host.Queue.ListAsync();
        Assert.All(runs, r => Assert.Equal(RunState.Queued, r.State));
        Assert.Contains($"quickstart={string.Join(',', runs.Select(r => r.Id))}", Uri.UnescapeDataString(host.Address), StringComparison.Ordinal);
        Assert.Equal(120, runs.Single(r => r.Kind == RunKind.Pretrain).MaxSteps);
    }

    [Fact]
    public async Task The_steps_of_a_quickstart_come_back_from_the_address_alone()
    {
        await using PageHost host = await PageHost.StartAsync();
        IReadOnlyList<string> ids = await host.Queue.AddQuickstartAsync("tiny");
        host.Open($"/?quickstart={string.Join(',', ids)},{ids[0]}");
        IRenderedComponent<Overview> page = host.Page.Render<Overview>();
        page.WaitForAssertion(() => Assert.Equal(3, page.FindAll("[data-kind]").Count));
        Assert.Equal("Preparing the stories", page.Find("h1").TextContent);
        Assert.Empty(page.FindAll("a[href^=chat]"));
    }

    [Fact]
    public async Task A_run_of_the_quickstart_that_is_taken_out_is_told_with_a_way_on()
    {
        await using PageHost host = await PageHost.StartAsync();
        IReadOnlyList<string> ids = await host.Queue.AddQuickstartAsync("tiny");
        host.Open($"/?quickstart={string.Join(',', ids)}");
        IRenderedComponent<Overview> page = host.Page.Render<Overview>();
        await host.Queue.StopAsync(ids[0], StopRequest.Save);
        page.WaitForAssertion(() => Assert.Contains("cancelled", page.Find("[role=alert]").TextContent, StringComparison.Ordinal));

        await page.FindAll("[role=alert] button").Single(b => b.TextContent == "Resume").ClickAsync(new());
        page.WaitForAssertion(() => Assert.Equal("Queued", page.FindAll("[data-kind]")[0].GetAttribute("data-state")));
    }

    [Fact]
    public async Task What_has_ended_and_what_waits_is_listed_with_the_last_model_to_talk_to()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Story.Training(store, "Good one", RunState.Completed);
            Story.Training(store, "Bad one", RunState.Failed, "the loss is not a number");
        });
        RunRow waiting = await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "Waiting one", Prepare = new PrepareConfig { Dataset = "more" } });
        IRenderedComponent<Overview> page = host.Page.Render<Overview>();
        page.WaitForAssertion(() => Assert.Contains("Waiting one", page.Find("[aria-labelledby=queue]").TextContent, StringComparison.Ordinal));
        string ended = page.Find("[aria-labelledby=recent]").TextContent;
        Assert.Contains("Good one", ended, StringComparison.Ordinal);
        Assert.Contains("loss 1.125", ended, StringComparison.Ordinal);
        Assert.Contains("the loss is not a number", ended, StringComparison.Ordinal);
        string good = (await host.Queue.ListAsync(RunState.Completed)).Single().Id;
        Assert.NotNull(page.Find($"a[href='chat?model={good}']"));
        Assert.Contains("The queue starts its next run by itself.", page.Markup, StringComparison.Ordinal);
        host.Queue.Change(paused: true);
        Assert.Contains("Nothing is running. The queue is paused.", host.Page.Render<Overview>().Markup, StringComparison.Ordinal);

        await page.Find($"[aria-label='Take out of the queue {waiting.Title}']").ClickAsync(new());
        Assert.Equal(RunState.Cancelled, (await host.Queue.FindAsync(waiting.Id))!.State);
    }

    [Fact]
    public async Task The_devices_are_shown_with_memory_use_and_temperature()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Good one", RunState.Completed), gpus: true);
        IRenderedComponent<Overview> page = host.Page.Render<Overview>();
        page.WaitForAssertion(() => Assert.Equal(["cuda:0", "cuda:1", "cpu"], page.FindAll("[data-device]").Select(e => e.GetAttribute("data-device"))));
        string first = page.Find("[data-device='cuda:0']").TextContent, second = page.Find("[data-device='cuda:1']").TextContent;
        foreach (string word in new[] { "NVIDIA Test", "1.05 GB of 25.2 GB", "5 % busy", "41 °C", "60 W", "free" }) Assert.Contains(word, first, StringComparison.Ordinal);
        foreach (string word in new[] { "NVIDIA Other", "memory unknown", "63 °C" }) Assert.Contains(word, second, StringComparison.Ordinal);
        Assert.DoesNotContain("busy", second, StringComparison.Ordinal);
        Assert.Equal("4", page.Find("[data-device='cuda:0'] [role=progressbar]").GetAttribute("aria-valuenow"));
    }
}
