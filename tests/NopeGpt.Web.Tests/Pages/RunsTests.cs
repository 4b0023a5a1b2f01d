using Bunit;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Pages;

namespace NopeGpt.Web.Tests.Pages;

public sealed class RunsTests
{
    [Fact]
    public async Task Runs_are_listed_with_their_numbers_and_the_address_filters_them()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Story.Training(store, "First", RunState.Completed);
            Story.Training(store, "Second", RunState.Interrupted, "stopped and saved");
        });
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        page.WaitForAssertion(() => Assert.Equal(2, page.FindAll("tbody tr").Count));
        Assert.Contains("1.125", page.Markup, StringComparison.Ordinal);
        Assert.Contains("stopped and saved", page.Markup, StringComparison.Ordinal);

        page.Find("#filter").Input("sec");
        page.WaitForAssertion(() => Assert.Single(page.FindAll("tbody tr")));
        Assert.EndsWith("?text=sec", host.Address, StringComparison.Ordinal);
        Assert.Contains("Second", page.Find("tbody").TextContent, StringComparison.Ordinal);

        host.Open("/runs?state=completed");
        page.WaitForAssertion(() => Assert.Contains("First", page.Find("tbody").TextContent, StringComparison.Ordinal));
        Assert.Single(page.FindAll("tbody tr"));

        host.Open("/runs?text=nothing-like-it");
        page.WaitForAssertion(() => Assert.Contains("No run fits this filter", page.Markup, StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_interrupted_run_is_resumed_from_its_row()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Second", RunState.Interrupted, "stopped and saved"));
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        await page.Find("[aria-label='Resume Second']").ClickAsync(new());
        Assert.Equal(RunState.Queued, (await host.Queue.ListAsync()).Single().State);
        page.WaitForAssertion(() => Assert.NotNull(page.Find(".state.queued")));
    }

    [Fact]
    public async Task A_run_that_is_added_elsewhere_appears_by_itself()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        page.WaitForAssertion(() => Assert.Contains("There are no runs yet", page.Markup, StringComparison.Ordinal));
        await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "Corpus", Prepare = new PrepareConfig { Dataset = "corpus" } });
        page.WaitForAssertion(() => Assert.Contains("Corpus", page.Find("tbody").TextContent, StringComparison.Ordinal));
    }
}
