using System.Diagnostics;
using Bunit;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class RunPageTests
{
    [Fact]
    public async Task A_run_shows_its_numbers_texts_checkpoints_and_configuration()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        page.WaitForAssertion(() => Assert.Equal("Story model", page.Find("h1").TextContent));
        Assert.Equal("1.125", page.Find("[data-metric='eval/loss'] td").TextContent);
        Assert.Equal("100", page.Find("[role=progressbar]").GetAttribute("aria-valuenow"));
        Assert.Equal(7, page.FindAll("[data-chart]").Count);
        Assert.NotNull(page.Find($"a[href='chat?model={run.Id}/000000050']"));
        Assert.Contains("stories", page.Find(".config").TextContent, StringComparison.Ordinal);
        Assert.DoesNotContain("corpus_bytes", page.Find(".config").TextContent, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Texts_from_a_run_are_never_markup()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, Story.Unsafe, RunState.Failed, Story.Unsafe));
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        page.WaitForAssertion(() => Assert.Equal(Story.Unsafe, page.Find("h1").TextContent));
        Assert.Empty(page.FindAll("script, b"));
        Assert.Contains(Story.Unsafe, page.Find(".words").TextContent, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_slider_goes_back_to_earlier_texts()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        page.WaitForAssertion(() => Assert.StartsWith("Once upon a time", page.Find(".words").TextContent, StringComparison.Ordinal));
        page.Find("[aria-label='Evaluation to show']").Input("0");
        Assert.Equal("Once and and the", page.Find(".words").TextContent);
    }

    [Fact]
    public async Task What_the_trainer_writes_appears_while_the_page_is_open()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        run.Write(Scribe.Step(100, 0.75, name: "eval/loss"));
        page.WaitForAssertion(() => Assert.Equal("0.750", page.Find("[data-metric='eval/loss'] td").TextContent), Wait.Longest);
    }

    [Fact]
    public async Task The_views_settings_stand_in_the_address_and_come_back_from_it()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        host.Open($"/runs/{run.Id}?smooth=0.25&log=1");
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        page.WaitForAssertion(() => Assert.Equal("0.25", page.Find(".smoothing output").TextContent));
        Assert.True(page.Find(".view input[type=checkbox]").HasAttribute("checked"));
        page.Find(".smoothing input").Input("0.9");
        Assert.EndsWith("?smooth=0.9&log=1", host.Address, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_kill_asks_first_and_then_kills()
    {
        // A trainer at work: a process that does nothing, said in the run's folder to hold the run's lock.
        using Process trainer = Process.Start("sleep", "300");
        FileStream? held = null;
        Scribe run = null!;
        try
        {
            await using PageHost host = await PageHost.StartAsync(store =>
            {
                run = Story.Training(store, "Story model", end: null);
                held = run.Folder.TryLock();
                string[] facts = File.ReadAllText($"/proc/{trainer.Id}/stat").Split(") ")[1].Split(' ');
                run.Folder.WriteIdentity(new TrainerIdentity(trainer.Id, long.Parse(facts[19])));
            });
            IRenderedComponent<MudDialogProvider> dialogs = host.Page.Render<MudDialogProvider>();
            IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
            page.WaitForAssertion(() => Assert.NotNull(page.Find(".head .state.running")));

            Task killing = page.FindAll("button").Single(b => b.TextContent == "Kill").ClickAsync(new());
            dialogs.WaitForAssertion(() => Assert.Contains("What it learned after its last checkpoint is lost", dialogs.Markup, StringComparison.Ordinal));
            Assert.False(trainer.HasExited);
            await dialogs.FindAll("button").Single(b => b.TextContent == "Kill it").ClickAsync(new());
            await killing;
            Assert.True(trainer.WaitForExit(Wait.Longest));
        }
        finally
        {
            held?.Dispose();
            if (!trainer.HasExited) trainer.Kill();
        }
    }

    [Theory]
    [InlineData("20200101-000000-ffff")]
    [InlineData("../../etc")]
    public async Task A_run_that_is_not_there_is_said_to_be_missing(string id)
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, id));
        page.WaitForAssertion(() => Assert.StartsWith("There is no run", page.Find("h1").TextContent, StringComparison.Ordinal));
    }
}
