using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;

namespace NopeGpt.Jobs.Queue.Migrations;

/// <summary>Which host works on a run.</summary>
[DbContext(typeof(RunTable))]
[Migration("20261123120000_Host")]
internal sealed class HostMigration : Migration
{
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.AddColumn<string>("Host", "Runs", defaultValue: "");

    protected override void Down(MigrationBuilder migrationBuilder) => migrationBuilder.DropColumn("Host", "Runs");
}
